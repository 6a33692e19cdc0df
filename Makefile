# Bare `make` prints the targets below.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
SOURCES  := $(shell git ls-files -co --exclude-standard -- '*.go' '*.sql' '*.css' '*.js' '*.html' '*.md' '*.yaml' go.mod go.sum 2>/dev/null)
RUN_ARGS ?=

.PHONY: help run build test prove bench lint fuzz clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: bin/llm-runner ## build what is missing and serve the page on http://127.0.0.1:8080 (RUN_ARGS="--vault ~/notes")
	exec ./bin/llm-runner serve $(RUN_ARGS)

build: bin/llm-runner ## build the binaries into bin/

bin/llm-runner: $(SOURCES) | toolchain
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./llm-runner

.PHONY: toolchain
toolchain:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or later (https://go.dev/dl)"; exit 1; }
	@for try in 1 2 3; do $(GO) mod download && exit 0; echo "downloading modules failed; trying again"; sleep 3; done; exit 1

test: | toolchain ## the fast tests (no network, no services)
	$(GO) vet ./...
	$(GO) test ./...

prove: bin/llm-runner ## the slow, real ones: Ollama, the official client, a browser, the race detector, short fuzzing
	llm-runner/test/setup.sh
	LLM_RUNNER_BIN=$(CURDIR)/bin/llm-runner $(GO) test -count=1 -timeout 20m -tags prove ./llm-runner/...
	$(GO) test -race -timeout 15m ./llm-runner/...
	$(MAKE) fuzz FUZZTIME=2000x # a count: a duration can end in the middle of an input and fail
	$(MAKE) lint

bench: bin/llm-runner ## measure against other gateways and write docs/bench.md
	LLM_RUNNER_BIN=$(CURDIR)/bin/llm-runner $(GO) run ./llm-runner/bench

lint: | toolchain ## vet and the linters of .golangci.yml
	scripts/lint.sh

FUZZTIME ?= 30s
fuzz: | toolchain ## fuzz every parser for FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built here
	rm -rf bin
