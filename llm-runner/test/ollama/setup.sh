#!/bin/bash
# setup.sh: builds a real Ollama server for the tests, into the cache of whoever runs it:
#   ${XDG_CACHE_HOME:-~/.cache}/llm-runner/ollama-VERSION/ollama
# The first run takes about four minutes on two cores; with the binary there it does nothing. Needs Go, a C++ compiler
# and two Debian packages, which it installs where it may.
set -euo pipefail

name=ollama # for lib.sh
version=v0.17.4 # as in ollamatest/server.go
here=$(cd "$(dirname "$0")" && pwd)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/ollama-$version
# shellcheck source=../../../scripts/lib.sh
. "$here/../../../scripts/lib.sh"

if [ -x "$dir/ollama" ]; then
    say "$version is there"
    exit 0
fi
command -v go >/dev/null || { say "needs Go on the PATH: https://go.dev/doc/install" >&2; exit 1; }
command -v c++ >/dev/null || { say "needs a C++ compiler: apt-get install g++" >&2; exit 1; }
packages nlohmann-json3-dev libstb-dev

say "building $version into $dir; this takes about four minutes"
work=$dir/build.$$
mkdir -p "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
cd "$work" # outside this repository's module

# Go module archives have no vendor folders, so the three C++ headers that Ollama keeps in them come from elsewhere: two
# from Debian's packages, the third is a stand-in.
export GOBIN="$work" GOWORK=off GOFLAGS='' CGO_ENABLED=1 CGO_CPPFLAGS="-I$here/stub"
started=$(date +%s)
again timeout 2700 go install -ldflags='-s -w' "github.com/ollama/ollama@$version"
mv ollama "$dir/ollama" # in one step: nobody meets half a binary
say "built in $(($(date +%s) - started)) s"
