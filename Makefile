# Everything a contributor or a machine needs, one word each. `make` alone lists the words.
#
# Nothing has to be installed first but Python (3.11 or later) and make: scripts/setup makes .venv and installs into it
# what the target needs. It is keyed on pyproject.toml, so a second run costs a few hundredths of a second.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help demo test quick soak lowest lint format schemas bench docs lab-shell setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='...' is handed on to pytest (test, quick, soak) and to the benchmarks (bench)."

demo: ## show the main job on a temporary directory; needs no root
	@$(PYTHON) scripts/setup run
	@scripts/demo

test: ## install what the tests need, run them all, check the coverage gate
	@$(PYTHON) scripts/setup test automation
	@$(BIN)/python scripts/install-test-tools
	@$(BIN)/python scripts/run-tests $(ARGS)

quick: ## run only the tests that need no virtual machine, without coverage
	@$(PYTHON) scripts/setup test automation
	@$(BIN)/python -m pytest -q -m "not lab and not guest" $(ARGS)

soak: ## go through every case where the tests take a sample, and through POOLKIT_SOAK_ROUNDS rounds of random faults
	@$(PYTHON) scripts/setup test automation
	@$(BIN)/python scripts/install-test-tools
	@POOLKIT_SWEEP=all POOLKIT_SOAK_ROUNDS=$${POOLKIT_SOAK_ROUNDS:-10} $(BIN)/python -m pytest -m sweep $(ARGS)

lowest: ## test documents and command with the lowest versions of lxml, xmlschema and rich that are allowed
	@$(PYTHON) scripts/test-lowest $(ARGS)

lint: ## ruff check, ruff format --check, mypy --strict, that tests call what there is, and that imports only run down
	@$(PYTHON) scripts/setup lint test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file tests/mypy.ini tests
	$(BIN)/lint-imports --no-cache

format: ## let ruff format and fix what it can
	@$(PYTHON) scripts/setup lint
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schemas: ## write poolkit/schemas anew from the mapping
	@$(PYTHON) scripts/setup run
	$(BIN)/python -m poolkit.schemas

bench: ## measure beside the C floor and, where installed, libvirtd; ARGS=--quick for a short run
	@$(PYTHON) scripts/setup run test
	@$(BIN)/python scripts/install-test-tools bench
	@$(BIN)/python -m benchmarks $(ARGS)

docs: ## build the documentation into docs/_build/html; warnings are errors
	@$(PYTHON) scripts/setup docs
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lab-shell: ## an interactive shell inside the test lab's virtual machine
	@$(PYTHON) scripts/setup test
	@$(BIN)/python scripts/install-test-tools lab
	@$(BIN)/python -m tests.lab shell

setup: ## make .venv with everything for development
	@$(PYTHON) scripts/setup run test automation lint docs

clean: ## remove .venv and everything else that the targets made here
	rm -rf -- $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist docs/_build docs/reference/generated
	rm -f -- .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf -- {} +
