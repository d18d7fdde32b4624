"""What every test may use."""

from pathlib import Path

import pytest

from edge.config import load
from edge.demo.media import media_dir


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The directory into which `edge models fetch` installed the real models."""
    return load().models_path


@pytest.fixture(scope="session")
def media() -> Path:
    """The directory into which `edge demo --fetch-only` installed the clips and photos."""
    return media_dir(load())
