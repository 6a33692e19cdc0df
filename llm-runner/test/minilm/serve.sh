#!/bin/bash
# serve.sh ARGUMENTS: runs minilm.py, after setting it up where that was not done yet. See minilm.py --help.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
"$here/setup.sh" >&2
# One thread: on a busy machine the threads of OpenBLAS wait for each other, spinning, and are ten times slower.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
exec "${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/minilm/bin/python" "$here/minilm.py" "$@"
