#!/bin/sh
# drill.sh: restores everything on the machine that may be wiped, and compares. DRILL_CONFIG is a file (a CI variable of type file) like
# /etc/homelab/homelab.yaml with the keys that may only read; DRILL_HOST is the machine as SSH knows it.
set -eu
cd "$(dirname "$0")/../.."
: "${DRILL_CONFIG:?the configuration is missing: make a protected CI variable of type file}"
mkdir -p drill
exec bin/homelab drill --config "$DRILL_CONFIG" --host "${DRILL_HOST:-root@dev-learning}" --tags all --out drill
