#!/bin/bash
# setup.sh: installs what the pipelines are run with: rsync (as root), and gitlab-ci-local at the versions of package-lock.json into
# ~/.cache/homelab/gitlab-ci-local. Run again, it changes nothing. About ten seconds.
set -euo pipefail
cd "$(dirname "$0")"

name=pipelines-setup # for lib.sh
# shellcheck source=../../../scripts/lib.sh
. ../../../scripts/lib.sh

extra=
command -v npm >/dev/null || extra="nodejs npm"
# shellcheck disable=SC2086 # a list of words
packages rsync $extra
dir=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/gitlab-ci-local
if ! cmp -s package-lock.json "$dir/installed.json"; then
	say "installing gitlab-ci-local"
	mkdir -p "$dir"
	cp package.json package-lock.json "$dir/"
	(cd "$dir" && again timeout 900 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
	cp package-lock.json "$dir/installed.json"
fi
say "gitlab-ci-local is there"
