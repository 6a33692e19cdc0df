#!/bin/sh
# terraform-lint.sh DIR: is every file in the canonical form, and is the root module valid? Asks no cloud for anything and reads no state.
# TERRAFORM names the program: terraform (default) or tofu. Nothing is left in DIR.
set -eu
dir=${1:?which root module?}
program=${TERRAFORM:-terraform}
"$program" fmt -check -recursive "$dir"
TF_DATA_DIR=$(mktemp -d)
export TF_DATA_DIR
lock=$dir/.terraform.lock.hcl
[ -e "$lock" ] && made='' || made=$lock # where the hashes are not written down yet, init writes them
trap 'rm -rf "$TF_DATA_DIR" ${made:+"$made"}' EXIT
"$program" -chdir="$dir" init -backend=false -input=false -no-color >/dev/null
"$program" -chdir="$dir" validate -no-color
