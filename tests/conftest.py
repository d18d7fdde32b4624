"""What every test may use."""

from pathlib import Path

import pytest

from edge.config import load


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The directory into which `edge models fetch` installed the real models."""
    return load().models_path
