#!/bin/bash
# test.sh [--real]: terraform fmt, validate and test. Without --real the providers are stand-ins that only know the schemas of what is used
# here (../test/terraform/standin), so that no registry is needed; with --real they are fetched from the registry, and the tests run
# against their own schemas and checks. TERRAFORM=tofu, or a path, runs OpenTofu.
set -euo pipefail
cd "$(dirname "$0")"
tofu=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/terraform/tofu # built by setup.sh where Terraform is not installed
terraform=${TERRAFORM:-$(command -v terraform || echo "$tofu")}
if [ "${1:-}" = --real ]; then
    echo "providers: the real ones, from the registry"
    unset TF_CLI_CONFIG_FILE
else
    TF_CLI_CONFIG_FILE=$(../test/terraform/setup.sh)
    export TF_CLI_CONFIG_FILE
    echo "providers: stand-ins, which know the schemas only (--real takes the real ones)"
fi
command -v "$terraform" >/dev/null || { echo "$terraform is missing: install Terraform 1.11 or OpenTofu, or let ../test/terraform/setup.sh build one" >&2; exit 1; }
TF_DATA_DIR=$(mktemp -d) # nothing is left in the tree
export TF_DATA_DIR TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
work=$(mktemp -d)
trap 'rm -rf "$TF_DATA_DIR" "$work"' EXIT
"$terraform" fmt -check -recursive -diff
cp -r . "$work/" # the lock file of stand-ins has no business beside the code
cd "$work"
rm -rf .terraform .terraform.lock.hcl
"$terraform" init -backend=false -input=false -no-color >"$TF_DATA_DIR/init.log" 2>&1 || { cat "$TF_DATA_DIR/init.log" >&2; exit 1; }
"$terraform" validate -no-color
# terraform test destroys what its mock providers made, which prevent_destroy forbids there, too.
sed -i '/^ *prevent_destroy *= true$/d' modules/*/main.tf
"$terraform" test -no-color
