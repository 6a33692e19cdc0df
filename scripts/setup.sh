#!/bin/bash
# setup.sh: installs on a fresh Debian what `make prove` needs, room by room. Run again, it changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
llm-runner/test/setup.sh
homelab-iac/test/setup.sh
