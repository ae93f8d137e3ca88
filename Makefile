# One command for each task. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The run environment holds what users need; the test environment adds the developers' tools.
$(VENV)/.run: requirement/run.txt pyproject.toml
	@$(PYTHON) tool/check_machine.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirement/build.txt -r requirement/run.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirement/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirement/dev.txt
	@touch $@
