# make dev      build and run everything on this machine (make dev ARGS="--listen 127.0.0.1:9000")
# make test     every check: format, lints, documentation, the API against its OpenAPI document, all tests
# make bench    the table of README, "Speed"
# make lint     clippy, warnings are errors          make fmt      format the code
# make queries  renew .sqlx after SQL has changed    make clean    remove what was built
#
# scripts/setup runs first where needed, and installs what is missing.

# One target does one thing after the other; cargo uses all cores by itself.
.NOTPARALLEL:
.PHONY: help dev test bench lint fmt queries clean

TARGET := $(or $(CARGO_TARGET_DIR),target)
STEP := @scripts/step

help:
	@sed -n '/^# make/s/^# //p; /^$$/q' Makefile

# `exec`: Ctrl-C reaches the program itself, which stops what it started and ends with 0, so make has nothing to say.
dev:
	@scripts/setup
	@cargo build --locked --package cp-server --package cp-agent --bins
	@exec "$(TARGET)/debug/insforge-cloud" dev $(ARGS)

# nextest comes last: its summary ends the output.
test:
	@scripts/setup --test
	$(STEP) format cargo fmt --all --check
	$(STEP) infra scripts/check-infra
	$(STEP) clippy cargo clippy --locked --workspace --all-targets -- -D warnings
	$(STEP) build cargo build --locked --workspace --all-targets
	$(STEP) doc-tests cargo test --locked --workspace --doc --quiet
	$(STEP) openapi scripts/test-openapi
	$(STEP) tests scripts/with-scratch-postgres scripts/run-tests

bench:
	@scripts/setup --bench
	@cargo build --locked --release --package cp-server --package cp-agent --package cp-tests --bins
	@"$(TARGET)/release/bench" $(ARGS)

lint:
	@cargo clippy --locked --workspace --all-targets -- -D warnings

fmt:
	@cargo fmt --all

queries:
	@scripts/setup
	@scripts/with-scratch-postgres scripts/prepare-queries

# Projects of `make dev` live in .insforge and stay.
clean:
	@cargo clean
	@rm -rf .venv tests/bench/migra/.venv
