PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install train test test-full quick lint clean

help: ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed ## makes .venv and installs fastrl with its development tools

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "fastrl needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

train: install ## trains PPO on CartPole-v1
	$(BIN)/fastrl train configs/ppo_cartpole.toml

test: install ## runs the tests, on two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-full: install ## runs these and those of a kind that others stand for
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "full or not full"

quick: install ## runs the tests that take seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clean: ## removes what was built, not what was trained
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
