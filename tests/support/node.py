"""Programs of Node.js, of the versions in tests/node/package-lock.json."""

from pathlib import Path

import pytest

from tests.support.places import ROOT

PROGRAMS = ROOT / "tests" / "node" / "node_modules" / ".bin"


def node_program(name: str) -> Path:
    """Return the program; where `make test` found no npm, the test is skipped."""
    if not (PROGRAMS / name).exists():
        pytest.skip(f"needs {name}: npm ci --ignore-scripts --prefix tests/node")
    return PROGRAMS / name
