# Two commands matter: `make run` (see it work) and `make test` (the whole suite).
# Everything is installed into .venv/ of this checkout, every file verified by its hash, from one of three locks:
#   requirements.lock        what a door carries (deploy/README.md)
#   requirements-demo.lock   that, and what `make run` needs: the demo's broker, what builds the models
#   requirements-dev.lock    all of it, for `make test` and `make lint`
# A package has the same version in all three.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE := tests/node/node_modules
# Half of the tests wait most of the time, so there are two workers for each core.
WORKERS ?= $(shell cores=$$(nproc); echo $$(( cores < 4 ? 2 * cores : 8 )))
SUDO := $(shell [ "$$(id -u)" = 0 ] || command -v sudo)
APT := $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get

.PHONY: help page run test test-system arm64-check faults soak deb lint lock clean system-venv system-test system-browser system-container

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

# A Debian python3 without ensurepip cannot make a virtual environment.
system-venv:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  $(APT) update -qq && $(APT) install -y -qq --no-install-recommends python3-venv; }

# What the tests start for real: an MQTT broker, a web server, stream servers, the service manager's linter, what makes disks fail.
system-test:
	@missing=; \
	command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$$missing mosquitto"; \
	command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$$missing nginx-light"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v ffmpeg >/dev/null || missing="$$missing ffmpeg"; \
	command -v systemd-analyze >/dev/null || missing="$$missing systemd"; \
	if [ -n "$$missing" ]; then $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing; fi

# A browser for the page, and npm. Where they cannot be had, the tests that need them are skipped.
system-browser:
	@missing=; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || \
	  missing="$$missing chromium-headless-shell"; \
	[ -z "$$missing" ] || { $(APT) update -qq && $(APT) install -y -qq --no-install-recommends $$missing; } || \
	  echo "not to be had:$$missing; what needs it is skipped"

# pip is in the locks, so that the interpreter's own old one goes; of its setuptools nothing here has any need.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r $<
	@$(BIN)/python -m pip uninstall --quiet --quiet --yes setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
endef

$(VENV)/.demo: requirements-demo.lock pyproject.toml | system-venv
	$(install)
	@touch $@

$(VENV)/.installed: requirements-dev.lock pyproject.toml | system-venv
	$(install)
	@touch $(VENV)/.demo $@

# Programs of Node.js, each file verified by the hash in the lock.
$(NODE)/.package-lock.json: tests/node/package-lock.json | system-browser
	@if command -v npm >/dev/null; then npm ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefix tests/node; \
	else echo "npm is not here: what needs tests/node is skipped"; fi

page: $(VENV)/.demo ## the page for a browser, for any web server; needs npm; out/page
	$(BIN)/edge demo --page out/page

run: $(VENV)/.demo ## fetch models and clips, then run the daemon on real clips against an embedded broker
	$(BIN)/edge demo

test: $(VENV)/.installed system-test system-browser $(NODE)/.package-lock.json ## install what the tests need, then run the whole suite
	$(BIN)/edge models fetch
	$(BIN)/edge demo --fetch-only
	$(BIN)/python -m pytest -q --numprocesses=$(WORKERS) --dist=load --maxschedchunk=8 --durations=10

faults: $(VENV)/.installed system-test ## every fault in its long form (20 minutes): decided, delivered, lost
	$(BIN)/python -m tests.faults

soak: $(VENV)/.installed system-test ## half an hour at full rate, with restarts all around: what the door holds and writes
	$(BIN)/edge models fetch
	$(BIN)/edge demo --fetch-only
	$(BIN)/python -m pytest -q tests/e2e/test_soak.py --soak-minutes 30 --timeout 0

deb: $(VENV)/.demo ## the Debian package for this machine, or with ARCH=arm64 for a board; out/*.deb
	$(BIN)/edge models fetch yunet sface-int8
	$(BIN)/python deploy/debian/build.py $(if $(ARCH),--arch $(ARCH)) $(if $(DOOR_PYTHON),--python $(DOOR_PYTHON)) $(if $(DEB_LEVEL),--level $(DEB_LEVEL))

# A Debian system in a container, booted by systemd; needs root.
system-container:
	@command -v mmdebstrap >/dev/null && command -v systemd-nspawn >/dev/null || { \
	  $(APT) update -qq && $(APT) install -y -qq --no-install-recommends mmdebstrap systemd-container; } || true

test-system: $(VENV)/.installed deb system-container ## install the package in a real system and try the service there (5 minutes)
	$(BIN)/edge demo --fetch-only
	$(BIN)/python -m tests.system out/edge-recognizer_*_$$(dpkg --print-architecture).deb

arm64-check: $(VENV)/.installed system-container system-test ## the package for arm64 under an emulator (20 minutes and more)
	$(MAKE) deb ARCH=arm64 DEB_LEVEL=0
	$(BIN)/edge demo --fetch-only
	$(BIN)/python -m tests.arm64 out/edge-recognizer_*_arm64.deb

lint: $(VENV)/.installed ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

RESOLVE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet

lock: ## resolve the dependencies (needs uv): versions stay, with UPGRADE=--upgrade the newest are taken
	$(RESOLVE) $(UPGRADE) --all-extras -o requirements-dev.lock
	$(RESOLVE) -c requirements-dev.lock --extra demo --extra build --extra checkout -o requirements-demo.lock
	$(RESOLVE) -c requirements-dev.lock -o requirements.lock

clean: ## remove the environment and caches of this checkout
	rm -rf $(VENV) $(NODE) .pytest_cache .mypy_cache .ruff_cache out
