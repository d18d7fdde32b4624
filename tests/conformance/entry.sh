#!/bin/sh
# Runs the adapter with the environment of this checkout, wherever the suite is started.
cd "$(dirname "$0")/../.." && exec .venv/bin/python -m tests.conformance.tuf_client "$@"
