#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz test of the repository for TIME each; 30s means half a minute, 2000x that many inputs.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each, for example 30s or 2000x}
git ls-files '*_test.go' | xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sort -u |
	while IFS=: read -r file func; do
		name=${func#func }
		echo "fuzz $name in $(dirname "$file")"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -timeout 10m "./$(dirname "$file")" | tail -n 1
	done
