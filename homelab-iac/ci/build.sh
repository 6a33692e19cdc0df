#!/bin/sh
# build.sh: builds bin/homelab, one static program, the same bytes from the same commit.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p bin
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/homelab ./homelab-iac/cmd/homelab
ls -l bin/homelab
