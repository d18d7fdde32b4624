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


def test_what_was_announced_under_an_earlier_prefix_is_taken_back(tmp_path: Path):
    old, new = (
        load(None, {"state_dir": str(tmp_path), "homeassistant": {"discovery": True, "prefix": prefix}})
        for prefix in ("before", "now")
    )
    first = announcements(old)
    second = announcements(new)
    assert [topic for topic, document in second.items() if not document] == list(first)
    assert all(topic.startswith("now/") for topic, document in second.items() if document)
    (tmp_path / "announced.json").write_text('["edge/v1/hq/door/status", "now/device/edge__x/config/more"]')
    assert all(announcements(new).values()), "nothing else is taken back, whatever the file says"
