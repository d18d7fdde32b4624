"""Every fault in its short form; the long one is `make faults`."""

from pathlib import Path

import pytest

from tests.faults.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_nothing_decided_is_lost_or_told_twice(name: str, tmp_path: Path):
    scenario, _, short = SCENARIOS[name]
    entry = scenario(tmp_path, short)
    assert entry.good, entry
