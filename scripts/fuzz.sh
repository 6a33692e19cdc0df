#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz test of the repository for TIME each; 30s means half a minute, 2000x that many inputs. What fails is shown
# whole, with its input: a file of testdata/fuzz that is gone with a fresh clone. Each package is built once for all of its fuzz tests.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?how long each, for example 30s or 2000x}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=$(go env GOCACHE)/fuzz # where go test keeps what it found, too
module=$(go list -m)
git ls-files '*_test.go' | xargs grep -lE '^func Fuzz' | xargs -n1 dirname | sort -u |
	while read -r dir; do
		go test -c -fuzz . -o "$work/fuzz" "./$dir"
		git ls-files "$dir/*_test.go" | grep -x "$dir/[^/]*" | xargs grep -ohE '^func Fuzz[A-Za-z0-9_]+' | sed 's/^func //' | sort -u |
			while read -r name; do
				echo "fuzz $name in $dir"
				if ! (cd "$dir" && "$work/fuzz" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "$time" -test.fuzzminimizetime 10x -test.timeout 10m \
					-test.fuzzcachedir "$corpus/$module/$dir") >"$work/log" 2>&1; then
					cat "$work/log"
					exit 1
				fi
				grep '^fuzz: elapsed' "$work/log" | tail -n 1
			done
	done
