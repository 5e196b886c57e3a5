# Everything a newcomer runs. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The engine is built in release, as users get it.
WHEELS := target/wheels
# Seconds for each fuzz target.
SECONDS_EACH ?= 30

SOURCES := $(shell find crates python -name '*.rs' -o -name 'Cargo.toml' -o -path 'python/tensorhold/*' -name '*.py*' | grep -v '/target/\|\.pyc') Cargo.toml Cargo.lock python/pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-candle test-python double model lint oracles fuzz bench docs wheel clean

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.demo $(VENV)/.wheel ## Does the main job on real weights
	$(BIN)/python examples/demo.py

test: test-rust test-python test-candle ## Runs every test

test-rust:
	tools/cargo-test.sh --workspace

# candle-core, unchanged, on our crate in the place of `safetensors`.
test-candle:
	cargo run --quiet --manifest-path examples/candle/Cargo.toml

test-python: $(VENV)/.test $(VENV)/.wheel double
	tools/install-test-tools.sh
	$(BIN)/python -m pytest python/tests --ignore=python/tests/devices
	@for runtime in cuda hip; do \
		TENSORHOLD_RUNTIME=$(CURDIR)/target/double/libtensorhold_double_$$runtime.so \
			$(BIN)/python -m pytest python/tests/devices || exit 1; \
	done
	$(BIN)/python testdata/check_reference.py
	$(BIN)/python crates/tensorhold-quant/tests/scheme_check.py
	$(BIN)/python python/tests/upstream/run.py

# Each copy's name says which runtime it stands for.
double: ## Builds the stand-in for the CUDA and HIP runtimes and prints its paths
	@cargo build --quiet --release --package tensorhold-double
	@mkdir -p target/double
	@for runtime in cuda hip; do \
		cp target/release/libtensorhold_double.so target/double/libtensorhold_double_$$runtime.so && \
		echo $(CURDIR)/target/double/libtensorhold_double_$$runtime.so || exit 1; \
	done

# With a target folder of its own, as the flag would have everything else compiled anew.
model: ## Checks the hand-over between threads in every order that they can run in
	RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR=target/loom \
		cargo test --quiet --release --package tensorhold --lib model

lint: $(VENV)/.test $(VENV)/.wheel ## Checks formatting, lints, types and the house's walls
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict --config-file python/pyproject.toml python/tensorhold
	$(BIN)/mypy --strict --python-version 3.11 testdata/make_corpus.py testdata/check_reference.py docs/*.py bench/tensorhold_bench
	$(BIN)/python -m mypy.stubtest tensorhold._native --mypy-config-file python/pyproject.toml

oracles: $(VENV)/.test ## Compares quantized weights with the packages that write them
	tools/oracles.sh $(BIN)/python

fuzz: ## Fuzzes each target for SECONDS_EACH=30 seconds
	tools/fuzz.sh $(SECONDS_EACH)

bench: $(VENV)/.wheel ## Times the works of the design beside other packages
	bench/run.sh --wheel $(WHEELS)/*.whl

docs: $(VENV)/.test $(VENV)/.wheel ## Builds the Rust documentation and runs every example of the guides
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	$(BIN)/python docs/check_pages.py
	$(BIN)/python docs/check_examples.py

wheel: $(VENV)/.wheel ## Builds the wheel in release

clean: ## Removes what was built
	rm -rf $(VENV) target

$(VENV)/.created:
	tools/make-venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.demo: python/requirements/demo.txt $(VENV)/.created
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/.test: python/requirements/test.txt $(VENV)/.demo
	$(BIN)/python -m pip install --quiet -r $<
	@touch $@

$(VENV)/.wheel: $(SOURCES) $(VENV)/.created
	rm -rf $(WHEELS)
	$(BIN)/python -m pip install --quiet 'maturin>=1.8,<2'
	$(BIN)/maturin build --quiet --release --manifest-path python/Cargo.toml --out $(WHEELS)
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall $(WHEELS)/*.whl
	@touch $@
