# Each target sets up what it needs: a virtual environment in .venv with the pinned packages of constraints.txt.
PYTHON ?= python3.11
VENV ?= .venv
# Further arguments of pip, e.g. an index with CPU-only builds of PyTorch: make demo PIP_ARGS="--extra-index-url …"
PIP_ARGS ?=
WORKSPACE ?= demo
BIN := $(VENV)/bin
INSTALLED := pyproject.toml constraints.txt $(wildcard brainsets_hook/*)

# What CI runs.
check: lint types docs compat beside test

.PHONY: check demo test lint audit types docs look notebooks release compat beside newest contrib clean

demo: $(VENV)/.demo
	$(BIN)/neurobridge demo $(WORKSPACE)

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/codespell

# The site, in site/; a warning is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The built site in a browser (Chromium, by its path in CHROMIUM or as playwright installs it): screenshots in
# site_pictures/; an error of the console, a dead link or a serious fault of accessibility ends it.
look: docs
	$(BIN)/python tests/site/look.py site site_pictures

# The notebooks of examples/notebooks, executed in notebooks_run/ and stored beside their text (minutes; a workflow of
# its own runs them).
notebooks: $(VENV)/.notebooks
	rm -rf notebooks_run && $(BIN)/python examples/notebooks/run.py notebooks_run
	cp notebooks_run/*/*.ipynb examples/notebooks

# Wheel and source archive in dist/, checked, and the wheel tried in an environment of its own.
release: $(VENV)/.python
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist && $(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt torch
	.venv-release/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt "$$(ls $(CURDIR)/dist/*.whl)[demo]"
	mkdir .venv-release/tried && cd .venv-release/tried && ../bin/neurobridge info && ../bin/neurobridge models \
	  && ../bin/brainsets list && ../bin/neurobridge demo demo --tiny
	rm -rf .venv-release

# Known weaknesses of the installed packages; needs the network.
audit: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

types: $(VENV)/.dev
	$(BIN)/mypy

# The older upstream line, in an environment of its own.
compat: .venv-upstream01/.ready
	.venv-upstream01/bin/python -m pytest tests/compat

# The fast tests on upstream's newest release, or on what UPSTREAM names (pip's way of naming it).
newest: UPSTREAM ?= torch_brain
newest: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --upgrade $(PIP_ARGS) "$(UPSTREAM)"
	$(BIN)/python -m pytest -m "not beside and not slow"

# A branch for a pull request to torch_brain: make contrib UPSTREAM=<checkout> PIECE=rotary|entrypoints|tvsd|allen
contrib: $(VENV)/.dev
	$(BIN)/python contrib/kit.py --upstream $(UPSTREAM) --piece $(PIECE)

# Beside an editable upstream and a released one, installed by pip and uv, in environments made for it (network).
beside: $(VENV)/.dev
	$(BIN)/python -m pytest tests/beside -m beside

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt torch
	touch $@

$(VENV)/.demo: $(VENV)/.python $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.python $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.notebooks: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[notebooks]'
	touch $@

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[docs]'
	touch $@

.venv-upstream01/.ready: $(INSTALLED)
	$(PYTHON) -m venv .venv-upstream01
	.venv-upstream01/bin/python -m pip install --quiet --upgrade pip
	.venv-upstream01/bin/python -m pip install --quiet $(PIP_ARGS) torch==2.13.0
	.venv-upstream01/bin/python -m pip install --quiet $(PIP_ARGS) -e '.[upstream01,ibl]' pytest
	touch $@

clean:
	rm -rf $(VENV) .venv-upstream01 .venv-release site site_pictures notebooks_run dist demo .pytest_cache .ruff_cache .mypy_cache
