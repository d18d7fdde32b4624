"""What the tests of cameras may use."""

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
