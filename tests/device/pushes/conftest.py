"""A door that pushes are tried in."""

from pathlib import Path

import pytest

from tests.support.pushes import PushDoor


@pytest.fixture
def door(tmp_path: Path) -> PushDoor:
    return PushDoor(tmp_path, "push.probation_s = 10")
