#!/bin/bash
# setup.sh: installs on a fresh Debian all that `make prove` needs beside Go: packages for PostgreSQL, the browser and the compiler,
# the official clients of OpenAI, Anthropic and Ollama, the referees of MCP, an Ollama built from source, a small real embedding model, and a PostgreSQL server
# with the extension vector. Run again, it checks in a second or two and changes nothing. Packages need root; the rest goes into
# prove/*/node_modules and ~/.cache/llm-runner.
set -euo pipefail

name=setup # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../scripts/lib.sh
. "$here/../../scripts/lib.sh"

command -v go >/dev/null || { say "needs Go on the PATH: https://go.dev/doc/install" >&2; exit 1; }
extra=
command -v node >/dev/null || extra="$extra nodejs"
command -v npm >/dev/null || extra="$extra npm"
command -v c++ >/dev/null || extra="$extra g++"
python3 -c 'import ensurepip, venv' 2>/dev/null || extra="$extra python3 python3-venv"
[ -x /usr/bin/python3 ] || extra="$extra python3" # the sandbox's, which sees no other
command -v git >/dev/null || extra="$extra git"
command -v make >/dev/null || extra="$extra make"
if ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    packages postgresql-common # Debian's package starts a server of its own unless it is told not to
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/llm-runner.conf
fi
# shellcheck disable=SC2086 # a list of words
packages ca-certificates curl postgresql chromium fonts-dejavu-core strace nlohmann-json3-dev libstb-dev e2fsprogs mount util-linux bubblewrap $extra
say "packages are there"

# npm leaves a copy of the lock file behind when it has installed; as long as ours is not newer, all is there. The referees of MCP bring the
# newer Node that they need.
for set in node mcp; do
    dir=$here/prove/$set
    if [ "$dir/node_modules/.package-lock.json" -nt "$dir/package-lock.json" ]; then
        say "the npm packages of prove/$set are there"
    else
        say "installing the npm packages of prove/$set"
        (cd "$dir" && again timeout 900 npm ci --no-audit --no-fund --loglevel=error)
    fi
done

"$here/minilm/setup.sh"
"$here/pgvector/setup.sh" # after minilm, whose pip it uses
"$here/ollama/setup.sh"
