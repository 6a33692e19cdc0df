#!/bin/bash
# setup.sh: installs on a fresh Debian all that `make prove` needs beside Go: packages for the browser and the compiler,
# the official OpenAI client, and an Ollama built from source. Run again, it checks in a second or two and changes
# nothing. Packages need root; the rest goes into prove/node/node_modules and ~/.cache/llm-runner.
set -euo pipefail

name=setup # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh
. "$here/lib.sh"

command -v go >/dev/null || { say "needs Go on the PATH: https://go.dev/doc/install" >&2; exit 1; }
extra=
command -v node >/dev/null || extra="$extra nodejs"
command -v npm >/dev/null || extra="$extra npm"
command -v c++ >/dev/null || extra="$extra g++"
# shellcheck disable=SC2086 # a list of words
packages ca-certificates curl chromium fonts-dejavu-core nlohmann-json3-dev libstb-dev $extra
say "packages are there"

# npm leaves a copy of the lock file behind when it has installed; as long as ours is not newer, all is there.
node=$here/prove/node
if [ "$node/node_modules/.package-lock.json" -nt "$node/package-lock.json" ]; then
    say "the OpenAI client is there"
else
    say "installing the OpenAI client"
    (cd "$node" && again timeout 300 npm ci --no-audit --no-fund --loglevel=error)
fi

"$here/ollama/setup.sh"
