# Everything happens in a virtual environment inside the checkout. Its stamp is newer than pyproject.toml only when the
# set-up went through, so a half-finished one is done again and a finished one is not.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
RUN := $(VENV)/.run
OFFLINE := HF_HUB_OFFLINE=1
# What is imported is compiled then, and kept for the next process; pip would compile all of 20,000 files, for a minute.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --no-compile
# glibc gives large blocks back to the system at once and fetches them anew at every step, which on some machines takes up
# to two thirds of the time of work on the processor, on others nothing. Other systems ignore these.
KEEP := MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=1073741824

# Tests are spread over the processors; a process of one thread waits for nobody.
SPREAD := --numprocesses=auto --maxprocesses=4
SINGLE := OMP_NUM_THREADS=1

.DELETE_ON_ERROR:
.PHONY: demo test test-all check docs docs-test figures clean

demo: $(RUN)
	$(OFFLINE) $(KEEP) $(BIN)/latentdrift demo --out runs/demo

# A file is one process's, the longest files first (tests/conftest.py). mypy, which has one thread, goes beside them.
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy > $(VENV)/mypy.log 2>&1 & types=$$!; \
	$(OFFLINE) $(KEEP) $(SINGLE) $(BIN)/python -m pytest $(SPREAD) --dist=loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/mypy.log; exit $$((tests || types))

# What `make test` leaves out because it takes long, too.
test-all: check
	$(OFFLINE) $(KEEP) $(SINGLE) $(BIN)/python -m pytest $(SPREAD) --dist=loadfile --no-loadscope-reorder -m "slow or not slow"

# The documentation site, in site/index.html. Any warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(OFFLINE) $(BIN)/mkdocs build --strict

# Runs every block of code of README.md and docs/ for real, in small.
docs-test: $(STAMP)
	$(OFFLINE) $(KEEP) $(SINGLE) $(BIN)/python -m pytest $(SPREAD) --dist=load \
		-m "slow or not slow" tests/test_code_blocks.py tests/test_notebooks.py

figures: $(STAMP)
	$(OFFLINE) $(KEEP) $(BIN)/python docs/figures.py

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What the package itself needs; the tests and the documentation need more.
$(RUN): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	rm -f $@
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) -e .
	touch $@

$(STAMP): $(RUN)
	$(INSTALL) -e ".[dev]"
	touch $@

$(VENV)/.docs: $(STAMP)
	$(INSTALL) -e ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist site
