"""What every test may use."""

from pathlib import Path

import pytest

from edge.assembly import build_recognizer
from edge.camera.replay import ReplayCamera
from edge.clock import SystemClock
from edge.config import load
from edge.demo.device import enrolled
from edge.demo.media import media_dir
from edge.gallery.gallery import Gallery
from edge.recognizer import Recognizer
from edge.types import Image


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
