# One command for each habit. `make demo` and `make test` set up all they need.
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9

UV := .venv-uv/bin/uv
BIN := .venv/bin
LABEL_STUDIO := .venv-label-studio/bin/label-studio
TEST := A2LC_TEST_LABEL_STUDIO=$(abspath $(LABEL_STUDIO)) $(BIN)/pytest
JOBS ?= 3

.PHONY: install demo test test-long servers bench bench-speed bench-scale test-fast lint format docs lock screenshots clean

install: .venv/.installed .venv-label-studio/.installed  ## This program in .venv, Label Studio in .venv-label-studio

demo: .venv/.installed .venv-label-studio/.installed  ## Three rounds in a real Label Studio; DATA=folder, KEEP=1
	$(BIN)/a2lc demo --label-studio $(LABEL_STUDIO) $(if $(DATA),--data $(DATA)) $(if $(KEEP),--keep)

test: lint .venv-label-studio/.installed servers  ## Lint, types, unit tests, and real servers, JOBS=3 at a time
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(TEST) -m "not timed and not long" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
	$(TEST) -m timed

test-long: .venv/.dev .venv-label-studio/.installed servers  ## 30 kills of running rounds; rounds on 1, 2 and 4 workers
	A2LC_TEST_KILLS=30 $(TEST) -s tests/test_jobs.py -k "killed_end or more_workers"

bench: .venv/.installed  ## Methods compared with an oracle annotator; DATA=world folder, OUT=folder
	$(BIN)/a2lc bench --data $(or $(DATA),$(error give DATA=a world folder)) --out $(or $(OUT),.cache/bench)

bench-speed: .venv/.installed  ## What acquisition, ranking and the corrector cost; fails where a target is missed
	$(BIN)/python -m benchmarks.speed acquisition ranking --check
	$(BIN)/python -m benchmarks.speed corrector --check

bench-scale: .venv/.installed  ## What rounds cost at 2,000, 20,000 and 200,000 masks, on drawn data
	$(BIN)/python -m benchmarks.scale

test-fast: .venv/.dev  ## Without the tests that start Label Studio
	$(BIN)/pytest -m "not e2e"

lint: .venv/.dev  ## Style, types, and known vulnerabilities of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck docker/*.sh scripts/*.sh .ci/run
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml docker-compose.gpu.yml
	$(BIN)/python -m scripts.audit

format: .venv/.dev  ## Put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev  ## The reference pages of docs/reference, from the code
	$(BIN)/python -m scripts.reference

lock: $(UV)  ## Pin every package again, from pyproject.toml
	./scripts/lock.sh $(UV)

screenshots: .venv/.dev .venv-label-studio/.installed  ## The README's pictures, in a real browser
	$(BIN)/python scripts/screenshots.py --label-studio $(LABEL_STUDIO)

clean:  ## Remove the environments and caches
	rm -rf .venv .venv-uv .venv-label-studio .cache .mypy_cache .ruff_cache .pytest_cache

# The tests start their own Redis, PostgreSQL and browser; where they are missing they come from the distribution.
servers:
	@./scripts/servers.sh

# A virtual environment needs ensurepip, which some distributions leave out; uv itself needs only pip.
$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed; set PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv-uv 2>/dev/null || $(PYTHON) -m pip install -q --prefix .venv-uv uv==$(UV_VERSION) \
		|| { echo "python3-venv or pip is needed: apt-get install python3-venv"; exit 1; }
	@test -x $(UV) || .venv-uv/bin/pip install -q --disable-pip-version-check uv==$(UV_VERSION)

.venv/.installed: $(UV) requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(UV) venv -q --python $(PYTHON) .venv
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --no-deps -r requirements.txt
	$(UV) pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@

.venv/.dev: .venv/.installed requirements-dev.txt
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python --no-deps -r requirements-dev.txt
	@touch $@

# Label Studio pins older redis and rq than this program wants, so it lives in an environment of its own.
.venv-label-studio/.installed: $(UV) requirements-label-studio.txt
	@test -x .venv-label-studio/bin/python || $(UV) venv -q --python $(PYTHON) .venv-label-studio
	$(UV) pip install -q --compile-bytecode --python .venv-label-studio/bin/python --no-deps -r requirements-label-studio.txt
	@touch $@
