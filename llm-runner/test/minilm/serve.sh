#!/bin/bash
# serve.sh ARGUMENTS: runs minilm.py, after setting it up where that was not done yet; under `make prove`, where it was, that would be a test
# that installs. See minilm.py --help.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${LLM_RUNNER_PROVE:-}" ]; then
    "$here/setup.sh" >&2
elif [ ! -e "${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/minilm/done-1" ]; then
    echo "the model is not there: run $here/setup.sh" >&2
    exit 1
fi
# One thread: on a busy machine the threads of OpenBLAS wait for each other, spinning, and are ten times slower.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
exec "${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/minilm/bin/python" "$here/minilm.py" "$@"
