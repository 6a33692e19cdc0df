#!/bin/sh
# test.sh: the fast tests of llm-runner. RUNNER_TEST_PACKAGES names others.
set -eu
cd "$(dirname "$0")/../.."
packages=${RUNNER_TEST_PACKAGES:-./llm-runner/...}
# shellcheck disable=SC2086 # a list of words
go vet $packages
# shellcheck disable=SC2086
go test $packages
