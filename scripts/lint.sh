#!/usr/bin/env bash
# lint.sh [format|go|shell|yaml|ansible|terraform]...: gofmt alone; gofmt, go vet and the linters of .golangci.yml; shellcheck; yamllint on the pipelines, and Ansible's
# linters on the playbooks; terraform fmt. Without a name, all but the first, which go does too. LINT_PACKAGES and LINT_PLAYBOOKS
# name other Go packages and playbooks than all, GOLANGCI_LINT and ANSIBLE_LINT other programs than those that are installed here. The linters are installed once, by version, outside the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
name=lint # for lib.sh
# shellcheck source=lib.sh
. scripts/lib.sh

lint_format() {
	unformatted=$(find . -name node_modules -prune -o -name '*.go' -print0 | xargs -0 "$("${GO:-go}" env GOROOT)/bin/gofmt" -l)
	if [ -n "$unformatted" ]; then
		echo "not formatted (run gofmt -w):" && echo "$unformatted" && return 1
	fi
}

lint_go() {
	version=v2.15.0
	lint_format
	packages_to_lint=${LINT_PACKAGES:-./...}
	# shellcheck disable=SC2086
	go vet $packages_to_lint
	# shellcheck disable=SC2086
	go vet -tags prove $packages_to_lint
	dir=${XDG_CACHE_HOME:-$HOME/.cache}/llm-runner/golangci-lint-$version
	linter=${GOLANGCI_LINT:-$dir/golangci-lint}
	if [ ! -x "$linter" ]; then
		echo "building golangci-lint $version (once; some minutes)"
		GOBIN=$dir GOFLAGS='' again go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
	fi
	# shellcheck disable=SC2086
	"$linter" run --timeout 10m --build-tags prove $packages_to_lint
}

lint_shell() {
	if ! command -v shellcheck >/dev/null && [ -n "${CI:-}" ]; then
		packages shellcheck
	fi
	if command -v shellcheck >/dev/null; then # homelab-iac/test/setup.sh installs it
		git ls-files '*.sh' | xargs shellcheck --external-sources --source-path=SCRIPTDIR --severity=warning --exclude=SC1007,SC2034
	else
		echo "shellcheck is missing: the scripts were not looked at (apt-get install shellcheck)"
		[ -z "${LLM_RUNNER_PROVE:-}" ]
	fi
}

lint_yaml() {
	tools=$(homelab-iac/ansible/setup.sh)
	"$tools/yamllint" --strict -c homelab-iac/ansible/.yamllint .gitlab-ci.yml llm-runner/.gitlab-ci.yml homelab-iac/.gitlab-ci.yml
	(cd homelab-iac/ansible && "$tools/yamllint" --strict .)
}

lint_ansible() {
	tools=$(homelab-iac/ansible/setup.sh)
	# shellcheck disable=SC2086 # a list of words, or none
	(cd homelab-iac/ansible && PATH=$tools:$PATH "${ANSIBLE_LINT:-$tools/ansible-lint}" --offline -q ${LINT_PLAYBOOKS:-})
}

lint_terraform() {
	terraform=$(command -v terraform || echo "${XDG_CACHE_HOME:-$HOME/.cache}/homelab/terraform/tofu") # homelab-iac/test/terraform/setup.sh builds it
	if [ -x "$terraform" ]; then
		TF_CLI_CONFIG_FILE=/dev/null "$terraform" fmt -check -recursive -diff homelab-iac/terraform
		TF_CLI_CONFIG_FILE=/dev/null "$terraform" fmt -check -recursive -diff homelab-iac/test/pipelines/trial
	else
		echo "terraform is missing: its files were not looked at"
		[ -z "${LLM_RUNNER_PROVE:-}" ]
	fi
}

[ $# -gt 0 ] || set -- go shell yaml ansible terraform
for what in "$@"; do
	case $what in
	format | go | shell | yaml | ansible | terraform) "lint_$what" ;;
	*) echo "lint: there is no linter $what: format, go, shell, yaml, ansible or terraform" >&2 && exit 2 ;;
	esac
done
