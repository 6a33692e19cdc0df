#!/bin/bash
# setup.sh: installs on a fresh Debian what `make prove` needs, room by room. Run again, it changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}
mkdir -p "$cache/llm-runner"
exec 8>"$cache/llm-runner/setup.lock"
flock -w 3000 8 # one at a time: two of them would tread on each other's half-made folders
llm-runner/test/setup.sh
homelab-iac/test/setup.sh
