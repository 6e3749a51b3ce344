# Everything a working copy needs. Requires python3 (3.11 or newer), make and git; all else goes into .venv.
#
#   make quickstart [ROWS=200]      set up, then run the example
#   make test [ARGS="-k gate"]      the default tests; make test-deep searches much longer
#   make test-litellm               the test with litellm, in an environment of its own
#   make check                      format, lint, types, import layers, documentation
#   make docs                       the documentation, to build/docs/index.html
#   make bench                      the benchmarks, ten minutes; writes benchmarks/RESULTS.md. With ARGS="--quick",
#                                   "--help", ...: whatever those say. bench-admission, bench-http: the other pages
#
# PYTHON=python3.12 chooses the interpreter of a new .venv.

PYTHON ?= python3
ARGS ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.stamp
LOG := $(VENV)/set-up.log
WORKERS ?= auto

# No prompts, no notices about newer versions of the tools: what is installed is what constraints.txt says.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Tests and benchmarks start hundreds of processes. Each would compile the whole package anew where an environment (that
# of a container, usually) forbids Python to keep what it compiled: four tenths of what such a process costs.
export PYTHONDONTWRITEBYTECODE :=

# Property tests differ widely in length, so idle workers steal. A worker that a hung test took down is replaced, twice
# at most. In CI the slowest tests are listed, so that a creeping suite is seen before it is a slow one.
PYTEST := $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal --max-worker-restart 2 \
	$(if $(CI),--durations 10)
PIP := $(PY) -m pip --quiet install --progress-bar off -c constraints.txt

USABLE := 'import pip, sys; sys.exit(sys.version_info < (3, 11))'
define NEW_VENV
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "headgate needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)" >&2; \
  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }; \
$(PYTHON) -m venv --clear $(VENV) || { \
  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
endef

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-deep test-litellm check check-format check-lint check-mypy check-pyright check-imports \
	check-docs docs bench bench-admission bench-http pins clean distclean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)
	@:

# A .venv whose interpreter works is kept. pip writes to a log that is shown only when a step fails.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (once, takes a minute)"
	@$(PY) -c $(USABLE) 2>/dev/null || { $(NEW_VENV); }
	@{ $(PIP) pip setuptools && $(PIP) --no-build-isolation --group dev -e . ; } >$(LOG) 2>&1 || { \
	  cat $(LOG) >&2; echo "The set-up failed: see above. 'make distclean' lets it start afresh." >&2; exit 1; }
	@touch $@

# ROWS reaches the example as an environment variable of that name.
quickstart: $(STAMP)
	@$(if $(ROWS),ROWS='$(ROWS)') $(PY) examples/quickstart.py $(ARGS)

test: $(STAMP)
	@$(PYTEST) $(ARGS)

# A single test may take long here, so the watchdog for hung tests waits longer too.
test-deep: $(STAMP)
	@HYPOTHESIS_PROFILE=deep $(PYTEST) -o faulthandler_timeout=3600 $(ARGS)

LITELLM := build/litellm/bin/python
test-litellm:
	@$(PYTHON) -m venv build/litellm
	@{ $(LITELLM) -m pip --quiet install -c constraints-litellm.txt pip setuptools && \
	  $(LITELLM) -m pip --quiet install --no-build-isolation -c constraints-litellm.txt --group litellm -e . ; } \
	  >build/litellm.log 2>&1 || { cat build/litellm.log >&2; exit 1; }
	@$(LITELLM) -m pytest tests/integration/test_attached_litellm.py $(ARGS)

check: check-format check-lint check-mypy check-pyright check-imports check-docs

check-format: $(STAMP)
	@echo "ruff format" && $(PY) -m ruff format --check .

check-lint: $(STAMP)
	@echo "ruff check" && $(PY) -m ruff check --quiet --output-format concise .

check-mypy: $(STAMP)
	@echo "mypy" && $(PY) -m mypy --strict

check-pyright: $(STAMP)
	@echo "pyright" && $(PY) -m pyright

# Without its cache: that keeps what an import meant before another module came into being.
check-imports: $(STAMP)
	@echo "import layers" && $(VENV)/bin/lint-imports --no-logo --no-cache

# A warning is an error: a link to nowhere, a name that is not there. The notice about the future of mkdocs is no warning.
check-docs: $(STAMP)
	@echo "documentation" && NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

docs: check-docs
	@echo "build/docs/index.html"

# Everything but the two below. With arguments of your own no page is written, unless they name one.
bench: $(STAMP)
	@$(PY) -m benchmarks $(or $(ARGS),--markdown benchmarks/RESULTS.md --pictures benchmarks/pictures)

# Depends on the code and the seeds alone, so it is written anew when a law changes. Some five minutes on two cores.
bench-admission: $(STAMP)
	@$(PY) -m benchmarks --scenario admission \
	  --markdown benchmarks/RESULTS-admission.md --pictures benchmarks/pictures $(ARGS)

# Real HTTP, so on a quiet machine: some twenty minutes.
bench-http: $(STAMP)
	@$(PY) -m benchmarks --scenario unknown-limit --runs 1 --markdown benchmarks/RESULTS-http.md $(ARGS)

# Writes constraints.txt anew from the newest versions that fit together. Commit it after 'make check test'.
PIN := build/pins/bin/python -m pip --quiet
pins:
	@$(PYTHON) -m venv --clear build/pins
	@{ $(PIN) install --upgrade pip setuptools && $(PIN) install --no-build-isolation --group dev -e . ; } \
	  >build/pins.log 2>&1 || { cat build/pins.log >&2; exit 1; }
	@{ sed -n '/^#/p' constraints.txt && $(PIN) list --format freeze --exclude headgate 2>>build/pins.log; } \
	  >build/pins.txt
	@mv build/pins.txt constraints.txt && rm -rf build/pins build/pins.log

clean:
	@rm -rf build dist __pycache__ quickstart-out bench-out .coverage .coverage.* \
	  .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks examples docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	@rm -rf $(VENV) headgate.egg-info
