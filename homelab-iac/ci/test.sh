#!/bin/sh
# test.sh: the fast tests of homelab-iac and of what both rooms share. HOMELAB_TEST_PACKAGES names others.
set -eu
cd "$(dirname "$0")/../.."
packages=${HOMELAB_TEST_PACKAGES:-. ./homelab-iac/... ./internal/... ./docs/...}
# shellcheck disable=SC2086 # a list of words
go vet $packages
# shellcheck disable=SC2086
go test $packages
