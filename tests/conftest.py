"""What every test may use."""

from pathlib import Path

import pytest

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.types import Image
from edge.device.assembly.recognizer import build_recognizer
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.lab.demo.device import enrolled
from edge.lab.demo.media import media_dir
from edge.recognition.recognizer import Recognizer
from tests.support import leftovers


def pytest_configure(config: pytest.Config) -> None:
    """Let everything that the tests start end with this run; workers are children of it."""
    if not hasattr(config, "workerinput"):
        leftovers.watch()


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The directory into which `edge models fetch` installed the real models."""
    return load().models_path


@pytest.fixture(scope="session")
def media() -> Path:
    """The directory into which `edge demo --fetch-only` installed the clips and photos."""
    return media_dir(load())


@pytest.fixture(scope="session")
def recognizer(media: Path) -> Recognizer:
    """A recognizer that knows the demo's 42 subjects."""
    nobody = build_recognizer(load(), Gallery.empty("none"))
    return nobody.with_gallery(enrolled(nobody, media, lambda what, done, total: None))


@pytest.fixture(scope="session")
def man(media: Path) -> Image:
    """A frame of the man who comes to the door in the clips."""
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    frame = camera.read()
    camera.close()
    assert frame is not None
    return frame.image
