"""What Home Assistant was told before is remembered in a file that anybody may have damaged."""

from pathlib import Path

import pytest

from edge.config import load
from edge.delivery import announcements


@pytest.mark.parametrize("content", ["5", "null", "{}", '[1, null, "homeassistant/x"]', "[" * 5000, "{", ""])
def test_a_damaged_memory_does_not_keep_a_door_shut(tmp_path: Path, content: str):
    (tmp_path / "announced.json").write_text(content)
    settings = load(None, {"state_dir": str(tmp_path), "homeassistant": {"discovery": True}})
    assert [topic for topic, document in announcements(settings).items() if not document] == []
