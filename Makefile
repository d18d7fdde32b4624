# Two commands matter: `make run` (see it work) and `make test` (the whole suite).
# Everything is installed into .venv/ of this checkout, from requirements.lock, verified by hash.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: help run test faults lint lock clean system-venv system-test

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# A Debian python3 without ensurepip cannot make a virtual environment.
system-venv:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  $(APT) update -qq && $(APT) install -y -qq --no-install-recommends python3-venv; }

# What the tests start for real: an MQTT broker, stream servers, the service manager's linter, what makes disks fail.
system-test:
	@missing=; \
	command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$$missing mosquitto"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v ffmpeg >/dev/null || missing="$$missing ffmpeg"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	if [ -n "$$missing" ]; then $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing; fi

$(VENV)/.installed: requirements.lock pyproject.toml | system-venv
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(VENV)/.installed ## fetch models and clips, then run the daemon on real clips against an embedded broker
	$(BIN)/edge demo

test: $(VENV)/.installed system-test ## install what the tests need, then run the whole suite
	$(BIN)/edge models fetch
	$(BIN)/edge demo --fetch-only
	$(BIN)/python -m pytest -q --numprocesses=2 --dist=worksteal --durations=10

faults: $(VENV)/.installed system-test ## every fault in its long form (20 minutes): decided, delivered, lost
	$(BIN)/python -m tests.faults

lint: $(VENV)/.installed ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(VENV)/.installed ## resolve the dependencies anew (needs uv: pip install uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate --quiet --upgrade -o requirements.lock

clean: ## remove the environment and caches of this checkout
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache out
