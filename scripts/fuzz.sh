#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz test of the repository for TIME each; 30s means half a minute, 2000x that many inputs. What fails is shown
# whole, with its input: a file of testdata/fuzz that is gone with a fresh clone.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each, for example 30s or 2000x}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sort -u |
	while IFS=: read -r file func; do
		name=${func#func }
		echo "fuzz $name in $(dirname "$file")"
		if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -timeout 10m "./$(dirname "$file")" >"$log"; then
			cat "$log"
			exit 1
		fi
		tail -n 1 "$log"
	done
