#!/usr/bin/env bash
# lint.sh: gofmt, go vet and the linters of .golangci.yml. golangci-lint is built once, by version, outside the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v2.15.0
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
if [ -n "$unformatted" ]; then
	echo "not formatted (run gofmt -w):" && echo "$unformatted" && exit 1
fi
go vet ./...
go vet -tags prove ./...
dir=${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/golangci-lint-$version
if [ ! -x "$dir/golangci-lint" ]; then
	echo "building golangci-lint $version (once; some minutes)"
	for try in 1 2 3; do
		GOBIN=$dir GOFLAGS= go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version" && break
		[ "$try" -lt 3 ] || exit 1
		sleep 5
	done
fi
"$dir/golangci-lint" run --timeout 10m --build-tags prove
