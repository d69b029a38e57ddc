# Everything a person needs begins here: make help.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BOOTSTRAP = $(PYTHON) -m controlplane.management.bootstrap
BIN = .venv/bin
QUIET_HOME = FOREBAY_HOME=build/check

.DEFAULT_GOAL := help
.PHONY: help run test check fmt bench dev engine

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo
	@echo "make run: DEMO=smollm2|tiny|none  KEEP_ENGINES=1  FOREBAY_HOME=.forebay  FOREBAY_HOST=127.0.0.1"
	@echo "          FOREBAY_WEB_PORT=8000  FOREBAY_GATEWAY_PORT=8001  FOREBAY_VALKEY_PORT=8002  FOREBAY_VLLM=/path/to/vllm"

run: ## install what is missing, then run everything on this machine until Ctrl-C
	@$(BOOTSTRAP) run
	@exec $(BIN)/python manage.py up

dev: ## install the development tools
	@$(BOOTSTRAP) dev

engine: ## install the CPU engine (vLLM without a GPU) in .venv-engine
	@$(BOOTSTRAP) engine

test: ## all tests; SUITE=unit|agent|postgres|browser|e2e for one kind
	@$(BOOTSTRAP) test
	@$(BIN)/python -m tests.suites $(SUITE)

check: dev ## ruff, mypy, import contracts, Django's checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(QUIET_HOME) $(BIN)/python manage.py check
	$(QUIET_HOME) $(BIN)/python manage.py makemigrations --check --dry-run

fmt: dev ## format and sort imports
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

bench: dev ## measure; BENCH=NAME for python -m bench.NAME (default gateway; all: ls bench), QUICK=1: under a minute, reassign and faults then on stand-in engines
	$(BIN)/python -m bench.$(or $(BENCH),gateway) $(if $(QUICK),--quick)
