# `make test` sets up what the tests need and runs all of them, as CI does. Each
# step is also a target of its own.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MODULE := github.com/osmosis-gateway/caddy-osmosis

# Tools are pinned, and built by `go run` from the module proxy: golangci-lint
# takes a minute of two cores the first time.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
XCADDY   := github.com/caddyserver/xcaddy/cmd/xcaddy@v0.4.5

# How long each fuzz target runs. There are some thirty, and all steps together
# have to fit into twenty minutes of two cores with nothing compiled before.
FUZZTIME ?= 2s

# Tests against real things (Kafka, Chromium, processes) stand in files with the
# build tag e2e. By default they are as short as they can be and still meet what
# they look for; OSMOSIS_TEST_REQUESTS=10000, OSMOSIS_CHAOS_RECORDS=50000,
# OSMOSIS_TEST_OUTAGE=1m, OSMOSIS_TEST_ANSWER=60s and OSMOSIS_LOOP_STRETCH=2.5
# have them last longer.
E2E = $(shell grep -rl --include='*_test.go' '^//go:build.*e2e' .)
E2E_DIRS = $(sort $(patsubst %/,%,$(dir $(E2E))))
E2E_TEST = go test -tags e2e -count 1 -p 2 -timeout 15m \
	-run "^($$(grep -hoE '^func Test[A-Z]\w*' $(E2E) | grep -vx 'func TestMain' | cut -c6- | paste -sd'|'))$$"

# Of these the tests hold what they test in their own process. The others run the
# gateway, which is built once and has the race detector in it; their own clients
# do without, since they would take longer than all that they watch.
INSIDE = ./autoscale ./autoscale/% ./internal/%

STEPS := tools tidy-check vet rooms lint cross test-race fuzz e2e xcaddy

.PHONY: help test bench $(STEPS)

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

test: ## all of the steps below
	@began=$$SECONDS; \
	for step in $(STEPS); do \
		echo "=== $$step"; start=$$SECONDS; \
		$(MAKE) --no-print-directory $$step; \
		echo "=== $$step took $$((SECONDS - start)) s"; \
	done; \
	echo "=== all steps took $$((SECONDS - began)) s"

tools: ## fetch or find what the tests need: Kafka's jars, the example workers' packages, Chromium, PHP
	@go test -tags e2e -count 1 -run '^Test(Jars|Install)$$' ./internal/broker/kafkatest ./examples/workers
	@.ci/chromium
	@.ci/php

tidy-check: ## go.mod and go.sum hold what is needed and nothing else
	go mod tidy -diff
	go mod verify

vet: ## go vet
	go vet ./...
	go vet -tags e2e ./...

rooms: ## who may import whom
	@.ci/rooms $(MODULE)

lint: ## golangci-lint with the list in .golangci.yml
	go run $(GOLANGCI) run ./...
	@.ci/sleeps

cross: ## compiles for Windows and macOS, tests included
	GOOS=windows GOARCH=amd64 go vet -tags e2e ./...
	GOOS=darwin GOARCH=arm64 go vet -tags e2e ./...

test-race: ## the tests, with the race detector
	go test -race -count 1 -timeout 6m ./... # uncached: a test limits the size of files, and what the cache needs is one

fuzz: ## every fuzz target for FUZZTIME
	@.ci/fuzz $(FUZZTIME)

e2e: ## the tests against a real Kafka, a real browser, real processes
	$(E2E_TEST) -race $(filter $(INSIDE),$(E2E_DIRS))
	@programs=$$(mktemp -d); trap 'rm -rf "$$programs"' EXIT; export OSMOSIS_TEST_PROGRAMS=$$programs; set -x; \
	go build -race -o $$programs/osmosis ./cmd/osmosis; \
	$(E2E_TEST) $(filter-out $(INSIDE),$(E2E_DIRS))

xcaddy: ## a Caddy built from this checkout with xcaddy, and the examples through it
	@.ci/xcaddy $(XCADDY) $(MODULE)

bench: ## the benchmarks, as tables; see bench/README.md
	@for benchmark in ingress latency roundtrip streams deliver handover survey; do go run ./bench/$$benchmark; done
