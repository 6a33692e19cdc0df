# Bare `make` prints the targets below.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
SOURCES  := $(shell git ls-files -co --exclude-standard -- '*.go' '*.sql' '*.css' '*.js' '*.html' '*.md' '*.yaml' '*.yml' '*.conf' go.mod go.sum 2>/dev/null)
RUN_ARGS ?=

.PHONY: help run build test prove bench lint fuzz clean lab-up lab-zero lab-ssh lab-down lab-proof

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: bin/llm-runner ## build what is missing and serve the page on http://127.0.0.1:8080 (RUN_ARGS="--vault ~/notes")
	exec ./bin/llm-runner serve $(RUN_ARGS)

build: bin/llm-runner bin/homelab ## build the binaries into bin/

bin/llm-runner: $(SOURCES) | toolchain
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./llm-runner

bin/homelab: $(SOURCES) | toolchain
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./homelab-iac/cmd/homelab

.PHONY: toolchain
toolchain:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.26 or later (https://go.dev/dl)"; exit 1; }
	@for try in 1 2 3; do $(GO) mod download && exit 0; echo "downloading modules failed; trying again"; sleep 3; done; exit 1

test: | toolchain ## the fast tests (no network, no services)
	GO=$(GO) scripts/lint.sh format
	$(GO) vet ./...
	$(GO) test ./...

prove: bin/llm-runner ## the slow, real ones: PostgreSQL, Ollama, a browser, restic, S3 and Kuma, machines made and restored, the race detector, fuzzing (STEPS="race lint" for some)
	GO=$(GO) scripts/prove.sh $(STEPS)

bin/labctl: $(SOURCES) | toolchain
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -o $@ ./homelab-iac/test/labctl

lab-up: bin/labctl ## start clean Debian machines and an S3 server on this machine (as root; M=alpha,beta names them)
	@homelab-iac/test/setup.sh
	@./bin/labctl up $(if $(M),--machines $(M))

lab-zero: bin/labctl bin/llm-runner bin/homelab ## make an empty lab into the example's three serving machines (as root); run again it goes on where it was
	@homelab-iac/test/setup.sh
	@./bin/labctl zero

lab-ssh: bin/labctl ## a shell on one of them: make lab-ssh M=alpha
	@./bin/labctl ssh $(or $(M),alpha)

lab-proof: bin/homelab bin/llm-runner ## make sample data, back them up, lose the machine, prove the restore; the report is restore-proof/restore-report.html (as root; TAGS=all adds Gitea)
	@homelab-iac/test/setup.sh lab
	./bin/homelab drill --lab --sample $(if $(TAGS),--tags $(TAGS))

lab-down: bin/labctl ## throw them away, and what killed labs left
	@./bin/labctl down

bench: bin/llm-runner ## measure against other gateways and write docs/bench.md; then the vector index, up to a million points (8 GB of memory)
	LLM_RUNNER_BIN=$(CURDIR)/bin/llm-runner $(GO) run ./llm-runner/bench
	VECTOR_BENCH=1000000 $(GO) test -run '^$$' -bench . -benchtime 1000x -timeout 60m ./llm-runner/internal/vector

lint: | toolchain ## vet and the linters of .golangci.yml
	scripts/lint.sh

FUZZTIME ?= 30s
fuzz: | toolchain ## fuzz every parser for FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built here
	rm -rf bin
