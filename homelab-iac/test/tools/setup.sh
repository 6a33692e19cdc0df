#!/bin/bash
# setup.sh: builds restic and versitygw at the versions of go.mod into ~/.cache/homelab/bin, installs Uptime Kuma from npm into
# ~/.cache/homelab/kuma, and PostgreSQL, sqlite3 and what npm needs to compile where they are missing (needs root). Run again, it
# checks in a moment and changes nothing. About four minutes cold. `setup.sh lab` builds restic and versitygw only.
set -euo pipefail
cd "$(dirname "$0")"
bin=${XDG_CACHE_HOME:-$HOME/.cache}/homelab/bin
want=$(sha256sum go.mod go.sum | sha256sum | cut -c1-16)
again() { for try in 1 2 3; do "$@" && return 0; echo "homelab tools: $1 failed; trying again" >&2; sleep $((try * 3)); done; return 1; }

if [ "${1:-}" != lab ]; then # what only the proofs run
	missing=
	compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || missing="$missing postgresql"
	command -v sqlite3 >/dev/null || missing="$missing sqlite3"
	command -v npm >/dev/null || missing="$missing nodejs npm"
	command -v c++ >/dev/null || missing="$missing g++ make python3"
	if [ -n "$missing" ]; then
		echo "homelab tools: installing$missing"
		again apt-get update -q >/dev/null
		# shellcheck disable=SC2086 # a list of words
		DEBIAN_FRONTEND=noninteractive again apt-get install -y -q --no-install-recommends $missing >/dev/null
	fi
fi

if [ "$(cat "$bin/.version" 2>/dev/null)" != "$want" ]; then
	mkdir -p "$bin"
	for tool in restic/restic/cmd/restic versity/versitygw/cmd/versitygw; do
		echo "homelab tools: building ${tool##*/}"
		again env CGO_ENABLED=0 GOFLAGS=-mod=readonly timeout 900 go build -trimpath -o "$bin/${tool##*/}" "github.com/$tool" 2> >(grep -v '^go: downloading' >&2)
	done
	echo "$want" >"$bin/.version"
fi
# What was built, for role restic: a binary that somebody changed since is not installed anywhere.
[ "$bin/SHA256SUMS" -nt "$bin/.version" ] || (cd "$bin" && sha256sum restic versitygw >.sums && mv .sums SHA256SUMS)

if [ "${1:-}" = lab ]; then "$bin/restic" version; exit; fi

# npm's package keeps its SQL files one folder above where its own server looks for them.
kuma=${bin%/bin}/kuma
if ! cmp -s kuma/package.json "$kuma/installed.json"; then
	echo "homelab tools: installing Uptime Kuma"
	mkdir -p "$kuma"
	cp kuma/package.json "$kuma/"
	(
		cd "$kuma"
		again timeout 400 npm install --ignore-scripts --no-audit --no-fund --loglevel=error
		again timeout 600 npm rebuild --loglevel=error @louislam/sqlite3
		cp node_modules/uptime-kuma/db/*.sql node_modules/uptime-kuma/db/old_migrations/
	)
	cp kuma/package.json "$kuma/installed.json"
fi
"$bin/restic" version
