"""What is gone is taken back, and nothing else, whatever the file of what was shown says."""

from pathlib import Path

import pytest

from edge.core import files
from edge.core.errors import FileError
from edge.device.assembly.departed import MAX_GONE, departed
from edge.device.settings.load import Settings, load
from edge.mqtt.contract.topics import Topics


def door(directory: Path, *cameras: str, device: str = "door") -> Settings:
    tables = {name: {"source": "/dev/video0"} for name in cameras}
    return load(None, {"device": device, "state_dir": str(directory), "cameras": tables})


def taken_back(settings: Settings) -> list[str]:
    found = departed(settings)
    assert set(found.values()) <= {b""}
    return sorted(topic.removeprefix("edge/v1/home/") for topic in found)


def of_camera(*cameras: str, device: str = "door") -> list[str]:
    return sorted(
        f"{device}/camera/{each}/{leaf}" for each in cameras for leaf in ("status", "info", "state")
    )


def test_a_camera_is_taken_back_over_restarts_because_the_broker_may_not_have_heard_it(tmp_path: Path):
    assert taken_back(door(tmp_path, "a", "b", "c")) == []
    assert taken_back(door(tmp_path, "a", "c")) == of_camera("b")
    assert taken_back(door(tmp_path, "a")) == of_camera("b", "c")
    assert taken_back(door(tmp_path, "a")) == of_camera("b", "c")
    assert taken_back(door(tmp_path, "a", "b")) == of_camera("c"), "who comes back stays"


def test_what_is_taken_back_is_bounded_and_the_oldest_goes(tmp_path: Path):
    for number in range(MAX_GONE + 4):
        departed(door(tmp_path, f"c{number}"))
    departed(door(tmp_path, "last"))
    found = taken_back(door(tmp_path, "last"))
    assert found == of_camera(*(f"c{number}" for number in range(4, MAX_GONE + 4)))


def test_a_name_of_before_is_taken_back_once_because_another_device_may_have_it_now(tmp_path: Path):
    departed(door(tmp_path, "a", "b", device="old"))
    departed(door(tmp_path, "a", device="old"))
    found = taken_back(door(tmp_path, "a", device="new"))
    assert set(of_camera("a", "b", device="old")) < set(found)
    assert {"old/status", "old/info", "old/health", "old/config/reported"} < set(found)
    assert {topic.split("/")[0] for topic in found} == {"old"}
    assert taken_back(door(tmp_path, "a", device="new")) == []


@pytest.mark.parametrize(
    "content",
    [
        "5",
        "null",
        "{}",
        "[" * 5000,
        "{",
        "",
        '{"site":"+","device":"#"}',
        '{"site":"a","device":"b","more":1}',
    ],
)
def test_a_damaged_memory_takes_nothing_back_and_is_mended(tmp_path: Path, content: str):
    (tmp_path / "shown.json").write_text(content)
    assert taken_back(door(tmp_path, "a", "b")) == []
    assert taken_back(door(tmp_path, "a")) == of_camera("b")


def test_a_disk_that_takes_no_more_does_not_keep_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, data: bytes, mode: int = 0) -> None:
        raise FileError(f"{path}: cannot be written: Read-only file system")

    departed(door(tmp_path, "a", "b"))
    monkeypatch.setattr(files, "write_whole", fail)
    assert [taken_back(door(tmp_path, "a")) for _ in range(2)] == [of_camera("b")] * 2


def test_a_memory_that_cannot_be_read_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    departed(door(tmp_path, "a", "b"))
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bounded", fail)
        assert taken_back(door(tmp_path, "a")) == []
    assert taken_back(door(tmp_path, "a")) == of_camera("b")


def test_all_that_a_device_has_kept_is_in_the_list_of_its_documents():
    topics = Topics("home", "door")
    assert len(topics.documents(("a", "b"))) == 6 + 2 * 3
    assert topics.event("a") not in topics.documents(("a",))
    assert topics.config_desired("device") not in topics.documents(())
