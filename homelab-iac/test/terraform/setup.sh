#!/bin/bash
# setup.sh: makes Terraform work where no registry of providers can be reached: builds the stand-in (standin/) and lays it where the versions
# pinned in homelab-iac/terraform/versions.tf are looked for, below ~/.cache/homelab/terraform. Prints the configuration file to name in
# TF_CLI_CONFIG_FILE. Run again, it checks in a moment. About 20 seconds cold. Where Terraform is not installed, or with TOFU=1, it also builds
# OpenTofu (about five minutes), which the tests then use.
set -euo pipefail

name=homelab-terraform # for lib.sh
cd "$(dirname "$0")"
# shellcheck source=../../../scripts/lib.sh
. ../../../scripts/lib.sh

cache=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/terraform
want=$(cat standin/*.go standin/go.* standin/schemas/*.json ../../terraform/versions.tf | sha256sum | cut -c1-16)
if [ "$(cat "$cache/.version" 2>/dev/null)" != "$want" ]; then
    say "building the stand-in for providers" >&2
    rm -rf "$cache/mirror" "$cache/.version"
    mkdir -p "$cache/mirror"
    (cd standin && again env CGO_ENABLED=0 GOFLAGS=-mod=readonly timeout 2700 go build -trimpath -o "$cache/standin" .) >&2
    platform=$(go env GOOS)_$(go env GOARCH)
    # source and version of each pinned provider, from the lines of versions.tf
    sed -n 's/^ *\(source\|version\) *= *"\([a-z0-9./-]*\)"$/\2/p' ../../terraform/versions.tf | paste - - | while read -r source version; do
        for registry in registry.terraform.io registry.opentofu.org; do
            dir=$cache/mirror/$registry/$source/$version/$platform
            mkdir -p "$dir"
            ln -f "$cache/standin" "$dir/terraform-provider-${source#*/}_v$version"
        done
    done
    cat >"$cache/terraform.rc" <<END
disable_checkpoint = true
provider_installation {
  filesystem_mirror {
    path = "$cache/mirror"
  }
}
END
    echo "$want" >"$cache/.version"
fi

if { [ "${TOFU:-}" = 1 ] || ! command -v terraform >/dev/null; } && [ ! -x "$cache/tofu" ]; then
    # go install refuses it, since its go.mod replaces a module; so it is built from a module of ours.
    say "building OpenTofu: about five minutes" >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    (
        cd "$work"
        go mod init tofu
        go mod edit -replace github.com/hashicorp/hcl/v2@v2.20.1=github.com/opentofu/hcl/v2@v2.20.2-0.20251021132045-587d123c2828
        again go get github.com/opentofu/opentofu/cmd/tofu@v1.12.6
        again timeout 2700 go build -trimpath -o "$cache/tofu" github.com/opentofu/opentofu/cmd/tofu
    ) >&2
fi
echo "$cache/terraform.rc"
