# Everything here needs Go alone, except where its line says so.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

GOLANGCI_VERSION := v2.15.0
BIN := $(CURDIR)/.cache/bin
PKGS ?= ./...
TESTFLAGS ?= -race -shuffle=on -timeout=30m

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  \1|\2/' | column -t -s '|'

.PHONY: run
run: ## Run the gateway with embedded Kafka and Redis and a demo; Ctrl-C ends it
	@echo 'building (the first time takes a few minutes) …'
	@$(MAKE) --silent build
	@exec bin/postrider dev --demo --log-level=warn $(ARGS)

.PHONY: build
build: ## Build bin/postrider
	CGO_ENABLED=0 go build -trimpath -o bin/postrider ./cmd/postrider

.PHONY: test
test: ## Run all tests, on a real Kafka (java, mvn) and Redis (redis-server) where they can be had; REQUIRE=all insists
	@go run ./e2e/services/cmd/services -- go run ./.ci/report $(TESTFLAGS) $(PKGS)

.PHONY: chaos
chaos: ## Kill, freeze and cut everything under load for CHAOS_DURATION (5m) and count; CHAOS_SEED repeats a run
	@CHAOS=1 REQUIRE=all go test -count=1 -v -timeout=90m -run='^TestChaos$$' ./e2e

.PHONY: lint
lint: ## Run the linters
	@command -v golangci-lint >/dev/null && golangci-lint version --short 2>/dev/null | grep -qx '$(GOLANGCI_VERSION:v%=%)' \
		&& exec golangci-lint run $(PKGS); \
	[ -x $(BIN)/golangci-lint-$(GOLANGCI_VERSION) ] || { \
		GOBIN=$(BIN) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION); \
		mv $(BIN)/golangci-lint $(BIN)/golangci-lint-$(GOLANGCI_VERSION); }; \
	exec $(BIN)/golangci-lint-$(GOLANGCI_VERSION) run $(PKGS)

.PHONY: fmt
fmt: ## Format the code
	@if command -v golangci-lint >/dev/null; then golangci-lint fmt; else gofmt -w $$(git ls-files '*.go'); fi

.PHONY: bench
bench: ## Measure speed, isolation and memory from outside, 36 minutes; BENCH passes its flags
	@go run ./bench $(BENCH)

.PHONY: clean
clean: ## Remove what was built; the data of "make run" stays
	rm -rf bin .cache
