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

.PHONY: run
run: $(VENV)/.run ## start every part on this machine; ARGS="--ephemeral" and others, see ARGS=--help
	@exec $(BIN)/spike dev $(ARGS)

.PHONY: demo
demo: $(VENV)/.run ## tell the story and check it; STORY=NAME one chapter, SABOTAGE=NAME or list
	@exec $(BIN)/spike dev --demo $(STORY) $(if $(SABOTAGE),--sabotage $(SABOTAGE))

.PHONY: test
test: $(VENV)/.dev ## run every proof at the size that fits (under 15 minutes)
	@$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m "not root"

.PHONY: test-root
test-root: $(VENV)/.dev ## run the few tests that need root: memory read from outside, a full disk
	@$(BIN)/pytest -m root

.PHONY: proof
proof: $(VENV)/.dev ## run every proof at its full size and write docs/reference/proof.md
	@$(BIN)/python tool/proof.py

.PHONY: lint
lint: $(VENV)/.dev ## check style, formatting and the layers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

.PHONY: type
type: $(VENV)/.dev ## check types
	@$(BIN)/mypy

.PHONY: bench
bench: $(VENV)/.dev ## measure, and show ratios against a baseline of the same run
	@$(BIN)/python -m bench.run

.PHONY: doc
doc: $(VENV)/.dev ## build the documentation as a static site in build/doc, and check its links
	@$(BIN)/sphinx-build --quiet --fail-on-warning --nitpicky -b html docs build/doc
	@echo "build/doc/index.html"

.PHONY: lock
lock: ## renew the locked dependencies (needs uv)
	@cd requirement && for name in build run dev; do \
		uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header $$name.in -o $$name.txt || exit 1; done

.PHONY: clean
clean: ## remove what was built and installed here
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/load
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
