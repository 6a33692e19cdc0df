#!/bin/bash
# setup.sh: builds restic and versitygw at the versions of go.mod into ~/.cache/homelab/bin, installs Uptime Kuma from npm into
# ~/.cache/homelab/kuma, and PostgreSQL, sqlite3 and what npm needs to compile where they are missing (needs root). Run again, it
# checks in a moment and changes nothing. About four minutes cold. `setup.sh lab` builds restic and versitygw only.
set -euo pipefail
cd "$(dirname "$0")"
name="homelab tools" # for lib.sh
# shellcheck source=../../../scripts/lib.sh
. ../../../scripts/lib.sh
bin=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/bin
want=$(sha256sum go.mod go.sum | sha256sum | cut -c1-16)

if [ "${1:-}" != lab ]; then # what only the proofs run
	extra=
	compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || extra="$extra postgresql"
	command -v sqlite3 >/dev/null || extra="$extra sqlite3"
	command -v npm >/dev/null || extra="$extra nodejs npm"
	command -v c++ >/dev/null || extra="$extra g++ make python3"
	# shellcheck disable=SC2086 # a list of words
	packages $extra
fi

if [ "$(cat "$bin/.version" 2>/dev/null)" != "$want" ]; then
	mkdir -p "$bin"
	for tool in restic/restic/cmd/restic versity/versitygw/cmd/versitygw; do
		say "building ${tool##*/}"
		again env CGO_ENABLED=0 GOFLAGS=-mod=readonly timeout 2700 go build -trimpath -o "$bin/${tool##*/}" "github.com/$tool" 2> >(grep -v '^go: downloading' >&2)
	done
	echo "$want" >"$bin/.version"
fi
# What was built, for role restic: a binary that somebody changed since is not installed anywhere.
[ "$bin/SHA256SUMS" -nt "$bin/.version" ] || (cd "$bin" && sha256sum restic versitygw >.sums && mv .sums SHA256SUMS)

if [ "${1:-}" = lab ]; then "$bin/restic" version; exit; fi

# npm's package keeps its SQL files one folder above where its own server looks for them.
kuma=${bin%/bin}/kuma
if ! cmp -s kuma/package-lock.json "$kuma/installed.json"; then
	say "installing Uptime Kuma"
	mkdir -p "$kuma"
	cp kuma/package.json kuma/package-lock.json "$kuma/"
	# The headers that came with this Node, where they did: otherwise they are fetched.
	headers=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
	[ ! -e "$headers/include/node/node.h" ] || export npm_config_nodedir="$headers"
	(
		cd "$kuma"
		again timeout 900 npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
		again timeout 1500 npm rebuild --loglevel=error @louislam/sqlite3
		cp node_modules/uptime-kuma/db/*.sql node_modules/uptime-kuma/db/old_migrations/
	)
	cp kuma/package-lock.json "$kuma/installed.json"
fi
"$bin/restic" version
