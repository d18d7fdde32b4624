"""What Home Assistant was told before is remembered in a file that anybody may have damaged."""

from pathlib import Path

import pytest

from edge.core import files
from edge.core.errors import FileError
from edge.device.assembly.delivery import MAX_TAKEN_BACK, announcements
from edge.device.settings.load import Settings, load


def door(directory: Path, *cameras: str, device: str = "door") -> Settings:
    values = {"discovery": True}
    tables = {name: {"source": "/dev/video0"} for name in cameras}
    return load(
        None, {"device": device, "state_dir": str(directory), "homeassistant": values, "cameras": tables}
    )


def taken_back(settings: Settings) -> list[str]:
    """Return the cameras whose documents are taken back."""
    gone = [topic for topic, document in announcements(settings).items() if not document]
    return [topic.removesuffix("/config").rpartition("__")[2] for topic in gone]


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


def test_a_camera_is_taken_back_over_restarts_because_the_broker_may_not_have_heard_it(tmp_path: Path):
    assert taken_back(door(tmp_path, "a", "b", "c")) == []
    assert taken_back(door(tmp_path, "a", "c")) == ["b"]
    assert taken_back(door(tmp_path, "a")) == ["b", "c"]
    assert taken_back(door(tmp_path, "a")) == ["b", "c"]
    assert taken_back(door(tmp_path, "a", "b")) == ["c"], "who comes back stays"


def test_what_is_taken_back_is_bounded_and_the_oldest_goes(tmp_path: Path):
    for number in range(MAX_TAKEN_BACK + 4):
        taken_back(door(tmp_path, f"c{number}"))
    found = taken_back(door(tmp_path, "last"))
    assert (found[-1], len(found)) == (f"c{MAX_TAKEN_BACK + 3}", MAX_TAKEN_BACK + 1)
    assert len(taken_back(door(tmp_path, "last"))) == MAX_TAKEN_BACK


def test_a_disk_that_takes_no_more_does_not_keep_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes) -> None:
        raise FileError(f"{path}: cannot be written: Read-only file system")

    announcements(door(tmp_path, "a", "b"))
    monkeypatch.setattr(files, "write_whole", fail)
    assert [taken_back(door(tmp_path, "a")) for _ in range(2)] == [["b"], ["b"]]


def test_a_memory_that_cannot_be_read_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    announcements(door(tmp_path, "a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bounded", fail)
        assert taken_back(door(tmp_path, "a")) == []
    assert taken_back(door(tmp_path, "a")) == ["b"]


def test_a_name_of_before_is_taken_back_once_because_another_device_may_have_it_now(tmp_path: Path):
    announcements(door(tmp_path, "a", device="old"))
    assert taken_back(door(tmp_path, "a", device="new")) == ["old", "a"]
    assert taken_back(door(tmp_path, "a", device="new")) == []
    for name in ("new-2", "new"):  # one begins like the other
        announcements(door(tmp_path, "a", device=name))
        assert taken_back(door(tmp_path, "a", device=name)) == []
