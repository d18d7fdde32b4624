"""What every test may use, and in which order tests run."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.camera.clips import ReplayCamera
from edge.camera.pipe import PipeCamera
from edge.core.clock import SystemClock
from edge.core.types import Image
from edge.device.assembly.recognizer import build_recognizer
from edge.device.settings.load import load
from edge.lab.demo.device import enrol_all
from edge.lab.demo.media import media_dir
from edge.recognition.recognizer import Recognizer
from tests.support import leftovers
from tests.support.broker import Mosquitto
from tests.support.postgres import Postgres, running_postgres
from tests.support.streams import MjpegServer, make_clip
from tests.support.weights import install_recommended

OUTSIDE = (subprocess, Mosquitto, MjpegServer, PipeCamera, make_clip, build_recognizer)
"""A module that uses one of these starts brokers, cameras or other programs, or loads the models."""

DOORS = frozenset({"e2e", "faults"})
"""Folders in which every test runs a whole door."""

INSTALLED = frozenset({"models_dir", "media", "mosquitto", "postgres_server"})
"""Fixtures that stand for what `make test` installs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make soak` say how long it goes on."""
    parser.addoption("--soak-minutes", type=float, default=0.2)


def pytest_configure(config: pytest.Config) -> None:
    """Let everything that the tests start end with this run; workers are children of it."""
    if not hasattr(config, "workerinput"):
        leftovers.watch()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need more than this process; they come last, end-to-end tests first of them."""
    real: dict[object, bool] = {}
    for item in items:
        assert isinstance(item, pytest.Function)
        if item.module not in real:
            known = vars(item.module).values()
            real[item.module] = item.path.parent.name in DOORS or any(
                each is outside for each in known for outside in OUTSIDE
            )
        if real[item.module] or not INSTALLED.isdisjoint(item.fixturenames):
            item.add_marker("real")
    items.sort(key=lambda item: (item.get_closest_marker("real") is not None, item.path.parent.name != "e2e"))


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The directory into which `edge models fetch` installed the real models."""
    return load().models_path


@pytest.fixture(scope="session")
def recommended_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all recommended models, from files beside the project; skips without these."""
    return install_recommended(tmp_path_factory.mktemp("recommended"))


@pytest.fixture(scope="session")
def media() -> Path:
    """The directory into which `edge demo --fetch-only` installed the clips and photos."""
    return media_dir(load())


@pytest.fixture(scope="session")
def enrolled_state(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """A state directory in which the demo's 42 subjects are enrolled: once for all workers of a run."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "enrolled"
    folder.mkdir(exist_ok=True)
    state = folder / "state"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            shutil.rmtree(folder / "half", ignore_errors=True)
            enrol_all(load(), folder / "half", media, lambda what, done, total: None)
            (folder / "half").rename(state)
    return state


@pytest.fixture(scope="session")
def recognizer(enrolled_state: Path, models_dir: Path) -> Recognizer:
    """A recognizer that knows the demo's 42 subjects."""
    places = {"state_dir": enrolled_state, "models_dir": models_dir}
    return build_recognizer(load().model_copy(update=places))


@pytest.fixture(scope="session")
def man(media: Path) -> Image:
    """A frame of the man who comes to the door in the clips."""
    camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
    camera.open()
    frame = camera.read()
    camera.close()
    assert frame is not None
    return frame.image


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real broker, open to everybody, for this test alone."""
    broker = Mosquitto(tmp_path).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL with pgvector, one for each worker."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> str:
    """The address of an empty database."""
    return postgres_server.database()
