#!/bin/bash
# setup.sh: builds Gitea from its module at the version of go.mod, and prints the folder that holds it with the templates, options and
# public files that it reads. With it there, that is all it does. PostgreSQL only, so no C compiler is needed. Five minutes cold.
set -euo pipefail

name=gitea-setup # for lib.sh
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../../../../scripts/lib.sh
. "$here/../../../../scripts/lib.sh"

cd "$here"
want=$(cat go.mod go.sum "$here/setup.sh" | sha256sum | cut -c1-12)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/homelab
dir=$cache/gitea-$want
if [ ! -e "$dir/gitea" ]; then
	mkdir -p "$cache"
	exec 9>"$cache/gitea.lock"
	flock -w 3000 9 # another one may be at it
fi
if [ ! -e "$dir/gitea" ]; then
	say "building Gitea into $dir" >&2
	rm -rf "$dir.part"
	mkdir -p "$dir.part"
	again timeout 900 go mod download code.gitea.io/gitea >&2
	version=$(go list -m -f '{{.Version}}' code.gitea.io/gitea)
	again env CGO_ENABLED=0 GOFLAGS=-mod=readonly timeout 2700 go build -trimpath -ldflags "-s -w -X main.Version=${version#v}" -o "$dir.part/gitea" code.gitea.io/gitea >&2
	from=$(go list -m -f '{{.Dir}}' code.gitea.io/gitea)
	cp -r --no-preserve=mode "$from/templates" "$from/options" "$from/public" "$dir.part/"
	rm -rf "$dir"
	mv "$dir.part" "$dir"
fi
echo "$dir"
