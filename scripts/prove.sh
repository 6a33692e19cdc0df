#!/usr/bin/env bash
# prove.sh [STEP...]: runs the slow proofs, step by step: setup, llm-runner, homelab, race, fuzz, lint; without a name, all of them in this order. A
# step that fails does not keep the others from running, but setup does. What failed stands in the last lines again, with how long each step took.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export LLM_RUNNER_PROVE=1 HOMELAB_PROVE=1 # what set-up should have brought and is not there fails, and is not skipped
go=${GO:-go}

# slow PATH...: the test files that `make test` has not run, or not with all that set-up brings: those with the tag prove, their namesakes without it
# (what crash_prove_test.go sets, crash_test.go does), and those that ask for what set-up brings.
slow() {
	local globs=("${@/%//*_test.go}") file
	git grep -lE '^//go:build .*prove|restictest\.|postgrestest\.|needs\.Missing|HOMELAB_PROVE=1|terraform is not there|there is no Node' -- "${globs[@]}" |
		while read -r file; do
			echo "$file"
			[ "${file%_prove_test.go}" = "$file" ] || git ls-files -- "${file%_prove_test.go}_test.go"
		done
}

# tests TIMEOUT PATH...: runs them, and no test beside them that stands in a file without the tag.
tests() {
	files=$(slow "${@:2}" | sort -u)
	names=$(echo "$files" | xargs grep -hoE '^func (Test|Fuzz|Example)[A-Za-z0-9_]+' | sed 's/^func //' | sort -u | paste -sd '|')
	# shellcheck disable=SC2046 # a list of packages
	"$go" test -count=1 -timeout "$1" -p 2 -tags prove -run "^($names)\$" $(echo "$files" | xargs -n1 dirname | sort -u | sed 's|^|./|')
}

step() {
	case $1 in
	setup) scripts/setup.sh ;;
	llm-runner) LLM_RUNNER_BIN=$PWD/bin/llm-runner tests 30m llm-runner ;;
	homelab) tests 45m homelab-iac internal ;;
	race) "$go" test -race -short -timeout 30m -gcflags='modernc.org/...=-race=false' ./llm-runner/... ;; # SQLite is C in Go's words and keeps its own locks: watched, it is eight times as slow
	fuzz) scripts/fuzz.sh 500x ;; # a count: a duration can end in the middle of an input and fail
	lint) scripts/lint.sh ;;
	*)
		echo "prove: there is no step $1: setup, llm-runner, homelab, race, fuzz or lint" >&2
		return 2
		;;
	esac
}

[ $# -gt 0 ] || set -- setup llm-runner homelab race fuzz lint
log=$(mktemp)
trap 'rm -f "$log" "$log".*' EXIT
table='' failed=0
for name in "$@"; do
	began=$SECONDS
	echo "prove: $name"
	if step "$name" 2>&1 | tee "$log"; then
		result=ok
	else
		result=FAILED failed=1
		{ grep -E '^ *--- FAIL|^panic: |^fatal error: |^WARNING: DATA RACE|^\*\*\* Test killed' "$log" || grep -E '^FAIL[[:space:]]' "$log" || tail -n 3 "$log"; } |
			head -n 12 | sed "s/^ */$name: /" >>"$log.failures"
	fi
	took=$((SECONDS - began))
	echo "prove: $name $result after $took s"
	table+=$(printf '%-12s %6d s  %s' "$name" "$took" "$result")$'\n'
	[ "$result" = ok ] || [ "$name" != setup ] || break
done
if [ "$failed" = 1 ] && [ -s "$log.failures" ]; then
	echo "prove: what failed, the first of it:"
	head -n 12 "$log.failures"
fi
printf 'prove: steps\n%s' "$table"
exit "$failed"
