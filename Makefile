# Treeline: the commands of the house. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export PATH := $(HOME)/.cargo/bin:$(PATH)
export TREELINE_CACHE ?= $(HOME)/.cache/treeline
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR

BOARD ?= x86_64-uefi
# What `make test-all` plays every scenario on; without it, every board whose tier is "tested".
TEST_BOARDS ?=
BUILDER := $(CARGO_TARGET_DIR)/release/builder
# Tests use the development build, which the unit tests need anyway. Packages are always chosen for the
# whole workspace with its tests: another choice means other features, and everything is compiled once more.
DEV_BUILDER := $(CARGO_TARGET_DIR)/debug/builder

# Small on the device: relative relocations packed (glibc 2.36 and newer), no unwind tables (a panic aborts),
# equal functions folded where the linker can (rust-lld, which Rust takes by default on x86_64 since 1.90).
FOLD := $(shell rustc -vV 2>/dev/null | awk '/^host: x86_64-unknown-linux-gnu/{h=1} /^release: /{split($$2,v,".")} END{if (h && v[2]>=90) print "-Clink-arg=-Wl,--icf=all"}')
export AGENT_RUSTFLAGS := -Clink-arg=-Wl,-z,pack-relative-relocs -Cforce-unwind-tables=no $(FOLD)
export AGENT_CFLAGS := -fno-asynchronous-unwind-tables -fno-unwind-tables
# The program itself is hardly more than `main`, but its level is the one at which everything is linked: with it the code
# that applies deltas becomes fast, while what was compiled for size stays small.
AGENT_LINK := -Copt-level=3

.PHONY: help setup build dev agent agents debs tuf-client demo lint unit system system-machines system-others scenarios test test-all bench bench-delta fuzz deny book clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install what building and testing needs (Debian 12 or 13)
	scripts/setup

build: agent ## builder (host) and device-agent (device profile)
	cargo build --release --locked -p builder

dev: agent ## the same for development
	cargo build --locked --workspace --all-targets

agent: ## device-agent alone, small
	RUSTFLAGS='$(AGENT_RUSTFLAGS)' CFLAGS='$(AGENT_CFLAGS)' cargo rustc --profile device --locked -p device-agent --bin device-agent -- $(AGENT_LINK)

agents: ## device-agent for arm64, armhf and ppc64el boards
	scripts/setup --cross
	scripts/agent-cross arm64 armhf ppc64el

debs: ## device-agent as Debian packages for every architecture
	scripts/setup --cross
	scripts/agent-debs amd64 arm64 armhf ppc64el

tuf-client: ## the agent's verifier behind the command line of the public TUF conformance suite
	cargo build --locked -p device-agent --example tuf-conformance-client
	@echo "$(abspath $(CARGO_TARGET_DIR))/debug/examples/tuf-conformance-client"

demo: setup build ## build a product, boot it, update it, break it, see it fall back
	scripts/demo $(BUILDER)

lint: ## format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

unit: ## tests beside the code
	cargo test --workspace --locked

# System tests that start virtual machines, which run one at a time, and the other ones.
MACHINE_TESTS := firmware grub_script secure_boot uboot_script
OTHER_TESTS := $(filter-out $(MACHINE_TESTS),$(patsubst tests/tests/%.rs,%,$(wildcard tests/tests/*.rs)))

system: system-machines system-others ## whole-system tests without virtual devices of a product

system-machines: dev
	$(call system_tests,$(MACHINE_TESTS))

system-others: dev
	$(call system_tests,$(OTHER_TESTS))

define system_tests
judge=$$(scripts/judge-libostree) && \
  JUDGE_OSTREE=$$judge BUILDER=$(abspath $(DEV_BUILDER)) cargo test --workspace --locked $(addprefix --test ,$(1))
endef

scenarios: dev ## virtual devices: the scenarios that fit into `make test`
	scripts/scenarios $(DEV_BUILDER) $(BOARD) --quick

# The tests are compiled before a virtual device is tested: its builder must stay what it is meanwhile.
test: setup lint unit dev ## everything that fits into forty minutes
	cargo test --workspace --locked --no-run $(addprefix --test ,$(MACHINE_TESTS) $(OTHER_TESTS))
	$(MAKE) -j2 scenarios system-others
	$(MAKE) system-machines

test-all: setup lint unit system deny dev agents ## the above with every scenario on every virtual board
	boards='$(TEST_BOARDS)'; boards=$${boards:-$$($(DEV_BUILDER) boards --tier tested --json | jq -r '.[].id')}; \
	  for board in $$boards; do scripts/scenarios $(DEV_BUILDER) $$board; done
	for board in x86_64-uefi qemu-aarch64 qemu-armhf; do scripts/scenarios-own-keys $(DEV_BUILDER) $$board; done

bench: build ## figures for docs/benchmarks.md, side by side with peers
	scripts/setup --peers
	scripts/bench $(BUILDER)
	scripts/bench-compose $(BUILDER)
	scripts/bench-flash $(BUILDER)

bench-delta: build ## sizes of deltas beside those of other tools, for docs/benchmarks.md
	scripts/setup --peers
	cargo rustc --profile device --locked -p device-agent --example apply-delta -- $(AGENT_LINK)
	scripts/bench-delta $(BUILDER) $(CARGO_TARGET_DIR)/device/examples/apply-delta

fuzz: ## the readers and the maker of deltas under a fuzzer, FUZZ_SECONDS each; needs a nightly compiler
	scripts/fuzz

deny: ## licences and advisories of all dependencies
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

book: ## docs/ as HTML
	command -v mdbook >/dev/null || cargo install --locked mdbook
	mdbook build docs

clean: ## remove build results (the cache stays)
	cargo clean
