#!/bin/bash
# setup.sh: makes the virtual environment that holds Ansible and its linters, at the versions and hashes of
# requirements.txt, and prints its bin folder. With it there, that is all it does. About half a minute.
set -euo pipefail

name=ansible-setup # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../scripts/lib.sh
. "$here/../../scripts/lib.sh"

want=$(cat "$here/requirements.txt" <(python3 --version) | sha256sum | cut -c1-12)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/ansible-$want
if [ ! -e "$dir/ready" ]; then
	mkdir -p "$dir"
	exec 9>"$dir/lock"
	flock -w 3000 9 # another one may be at it
fi
if [ ! -e "$dir/ready" ]; then
	say "installing Ansible into $dir" >&2
	rm -rf "$dir/venv"
	python3 -m venv "$dir/venv" || { say "python3 cannot make a virtual environment: apt-get install python3-venv" >&2; exit 1; }
	again timeout 900 "$dir/venv/bin/pip" install --quiet --require-hashes -r "$here/requirements.txt" >&2
	touch "$dir/ready"
fi
echo "$dir/venv/bin"
