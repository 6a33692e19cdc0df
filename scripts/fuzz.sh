#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz test of the repository for TIME each.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each, for example 30s}
grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' internal llm-runner homelab-iac 2>/dev/null | sort -u |
	while IFS=: read -r file _ func; do
		name=${func#func }
		echo "fuzz $name in $(dirname "$file")"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "./$(dirname "$file")" | tail -n 1
	done
