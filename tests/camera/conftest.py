"""What the tests of cameras may use."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.camera.rig import Rig


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    for thread in rig.threads:
        thread.stop(3.0)
        assert not thread.is_alive()


@pytest.fixture(scope="session", autouse=True)
def ffmpeg_in_memory() -> None:
    """Run ffmpeg once: read from a cold disk it takes seconds to start, which no camera is tested for."""
    subprocess.run(["ffmpeg", "-v", "quiet", "-version"], check=True, stdout=subprocess.DEVNULL)
