# Every target prepares a fresh Debian machine (as root) by itself. `make` alone lists them.

TARGET     := x86_64-unknown-linux-musl
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
RELEASE    := $(TARGET_DIR)/$(TARGET)/release/nodeagent
LAB        := $(TARGET_DIR)/$(TARGET)/lab
CACHE      := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/nodeagent
# Node boots wait more than they work: two at a time, on any machine.
THREADS    := 2

.DEFAULT_GOAL := help
.PHONY: help setup build demo cluster lab-kubernetes bench test lint test-unit test-lab test-power test-ha soak check-static deny fuzz fuzz-short clean-lab

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: ## install what building and the lab need, where it is missing
	@tests/lab/setup.sh

# No clock is before the day of the program's source.
build: export SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null))
build: setup ## the static release binary
	cargo build --locked --release --bin nodeagent
	@echo "$(RELEASE)"

demo: setup ## boot one node from cloud-config/worker.yaml and show what the agent did
	cargo build --locked --profile lab --bin nodeagent --example demo --example standin
	@$(LAB)/examples/demo $(LAB)/nodeagent

cluster: build lab-kubernetes ## three machines from a cluster.yaml to pods that reach each other, with real Kubernetes
	cargo build --locked --profile lab --example cluster --example standin
	@$(LAB)/examples/cluster $(RELEASE)

lab-kubernetes: setup ## build Kubernetes for the lab from Debian's source, where it is not built yet: once, some twelve minutes
	cargo build --locked --profile lab --example cluster
	@$(LAB)/examples/cluster --kubernetes

bench: build ## figures beside those of other tools, by TOPICS (all)
	cargo build --locked --profile lab --example bench --example standin
	@$(LAB)/examples/bench $(RELEASE) $(TOPICS)

test: ## everything that continuous integration runs
	$(MAKE) lint
	$(MAKE) test-unit
	$(MAKE) fuzz-short
	$(MAKE) test-lab
	$(MAKE) test-power
	$(MAKE) check-static
	$(MAKE) deny

lint: setup ## formatting, and clippy with warnings denied
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --profile lab --all-targets -- -D warnings

test-unit: build ## unit tests, and tests on file trees: golden nodes, kill loop, failing storage
	NODEAGENT_RELEASE=$(RELEASE) cargo test --locked --profile lab --lib --test cli

test-lab: build lab-kubernetes ## tests on real nodes, of the release binary
	cargo build --locked --profile lab --example standin
	NODEAGENT=$(abspath $(RELEASE)) cargo test --locked --profile lab --test lab -- --test-threads=$(THREADS) --skip power:: --skip ha::

# The drill and its control, one beside the other.
test-power: build ## cut the power of a virtual machine at random moments of a bootstrap
	cargo build --locked --profile lab --example standin
	NODEAGENT=$(abspath $(RELEASE)) cargo test --locked --profile lab --test lab -- --test-threads=$(THREADS) --nocapture power::

soak: export POWER_CUTS ?= 30
soak: export POWER_POINTS ?= 300
soak: test-power test-ha ## the drills that take long: thirty power cuts that are booted, three hundred judged; a controller lost

test-ha: build ## three controllers behind one name, one of which is lost
	cargo build --locked --profile lab --example standin
	NODEAGENT=$(abspath $(RELEASE)) cargo test --locked --profile lab --test lab -- --nocapture ha::

# A check that cannot fail proves nothing: a program that is dynamic for sure must be objected to, and with status 1,
# because any other says that it could not be read.
check-static: build ## prove that the release binary is static
	@tests/lab/static-check.sh $(RELEASE)
	@status=0; tests/lab/static-check.sh /bin/ls || status=$$?; [ $$status = 1 ] || \
	    { echo "the static check passed or could not read /bin/ls, which is dynamic (status $$status)" >&2; exit 1; }

deny: setup ## licences, banned crates, sources, and advisories where their database can be had
	@tests/lab/deny.sh

fuzz: setup ## fuzz every parser for FUZZ_SECONDS each (600)
	@fuzz/run.sh $(or $(FUZZ_SECONDS),600)

fuzz-short: setup ## fuzz every parser for 15 seconds each
	@fuzz/run.sh 15

clean-lab: ## remove cached node trees, packages, and what failed labs left
	@if [ -n "$$(ls -A $(CACHE)/lab/run 2>/dev/null)" ]; then \
	    echo "a lab is running, or was killed and not swept yet: see $(CACHE)/lab/run; the next lab sweeps it" >&2; exit 1; fi
	rm -rf --one-file-system $(CACHE)/lab
