# Thalamus: everything a newcomer or CI runs. `make help` lists the targets.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

DATA    ?= data
LISTEN  ?= 127.0.0.1:7700
SEEDS   ?= 10000
ROUNDS  ?= 100
SECONDS_OF_LOAD ?= 60
PYTEST_ARGS ?=

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
VENV       := .deps/venv
# Servers under test are started by scripts/with-cassandra.sh and by the fixtures, on free ports.
WITH_CQL   := scripts/with-cassandra.sh

.PHONY: help run build check fmt test test-rust test-python test-stores test-cql test-celery durability fuzz-json sim bench bench-long bench-peer bench-build setup clean-deps

help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build the release binary and serve on http://127.0.0.1:7700, data in ./data
	exec $(TARGET_DIR)/release/thalamus serve --listen $(LISTEN) --data-dir $(DATA)

build: ## build the release binary
	cargo build --release --locked --bin thalamus

check: ## formatting, lints, docs, licences: everything must be clean
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
	@if cargo deny --version >/dev/null 2>&1; then \
	    cargo deny --offline check bans licenses sources; \
	else \
	    echo "check: cargo-deny is not installed, licence and source rules of deny.toml not checked (cargo install --locked cargo-deny)"; \
	fi

fmt: ## format the Rust code
	cargo fmt --all

setup: ## install what the tests need, pinned: Redis, a Python venv, the Cassandra jars
	scripts/setup-tests.sh

test: setup ## all tests, on both stores, against servers that it starts and stops itself
	$(WITH_CQL) $(MAKE) --no-print-directory test-rust test-stores

test-rust: ## the Rust tests only (with Cassandra when THALAMUS_TEST_CQL=host:port is set)
	cargo test --workspace --locked --no-fail-fast

test-python: ## the tests from outside: the binary, real agents, real workers
	@test -x $(VENV)/bin/pytest || scripts/setup-tests.sh
	cargo build --locked --bin thalamus
	$(VENV)/bin/pytest tests $(PYTEST_ARGS)

test-stores: ## the tests from outside, and again on Cassandra those that are about more than workers
	$(MAKE) --no-print-directory test-python
	THALAMUS_TEST_STORE=cql $(MAKE) --no-print-directory test-python PYTEST_ARGS='-m "not (cql or celery or engines or disk)" $(PYTEST_ARGS)'

test-cql: setup ## the contract suite of the store and all tests from outside, on a real Cassandra
	$(WITH_CQL) bash -euc 'cargo test -p cql --locked; THALAMUS_TEST_STORE=cql $(MAKE) --no-print-directory test-python'

test-celery: setup ## only the tests with real Celery workers
	$(MAKE) --no-print-directory test-python PYTEST_ARGS="tests/test_celery.py"

durability: setup ## kill -9 under load, ROUNDS times (default 100); a disk that hangs for a minute, a full disk
	cargo build --locked --bin thalamus
	THALAMUS_TEST_ROUNDS=$(ROUNDS) THALAMUS_TEST_STALL_SECONDS=60 $(WITH_CQL) \
	    $(VENV)/bin/pytest tests/test_durability.py tests/test_disk.py -s

fuzz-json: ## the canonical JSON against CPython, a long run (DOCUMENTS=n)
	THALAMUS_TEST_DOCUMENTS=$(or $(DOCUMENTS),1000000) cargo test -p domain --release --locked canonical -- --nocapture

sim: ## the simulation, SEEDS seeds (default 10000); a failure prints its seed
	THALAMUS_SIM_SEEDS=$(SEEDS) cargo test -p actors --release --locked sim -- --nocapture

bench: setup bench-build ## every load but those on 10 M tasks, in under 20 minutes; REPORT=DIR (default target/bench)
	scripts/bench.sh $(SECONDS_OF_LOAD)

bench-long: bench-build ## growth up to 10 M tasks, then 10 minutes of ingest; REPORT=DIR (default target/bench-long)
	scripts/bench-long.sh

bench-peer: bench-build ## the same loads here and on the reference brain; REPORT=DIR (default target/bench-peer)
	scripts/bench-peer.sh

bench-build: build
	cargo build --release --locked -p load
	cargo build --release --locked -p cql --example ceiling

clean-deps: ## remove what setup installed below .deps
	rm -rf .deps
