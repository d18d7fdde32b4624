"""State files: absent, whole, damaged, of a newer edge, too large, or on a disk that does not give them."""

import logging
import stat
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from edge.core.errors import EdgeError, FileError, GalleryError
from edge.core.files import StateFile, StateKeeper

MAX_BYTES = 100


class Seen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: int = 0


class Place:
    """Where a part remembers the version it has seen."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state" / "seen.json"
        self.file = StateFile(self.path, Seen, MAX_BYTES, GalleryError, "restore it, or remove it")

    def holds(self, data: bytes) -> None:
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_bytes(data)

    def keeper(self) -> StateKeeper[Seen]:
        return StateKeeper(self.file, Seen(), "nothing newer is taken")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_was_never_written_is_absent_and_no_error(place: Place):
    assert place.file.read() is None
    assert (place.keeper().value, place.keeper().unread) == (Seen(), None)
    assert not place.path.parent.exists(), "who only reads makes nothing"


def test_what_was_written_is_read_by_its_owner_alone(place: Place):
    place.file.write(Seen(version=7))
    assert place.file.read() == Seen(version=7)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.path.parent.stat().st_mode) == 0o700
    place.file.write(Seen(version=8))
    assert place.keeper().value == Seen(version=8)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        pytest.param(b"", GalleryError, "damaged; restore it, or remove it", id="empty"),
        pytest.param(b"{", GalleryError, "damaged; restore it, or remove it", id="torn"),
        pytest.param(b"\0" * 50, GalleryError, "damaged; restore it, or remove it", id="zeros"),
        pytest.param(b"[]", GalleryError, "damaged; restore it, or remove it", id="a list"),
        pytest.param(b'{"version": "7"}', GalleryError, "damaged; restore", id="a number as text"),
        pytest.param(b'{"version": "7", "more": 1}', GalleryError, "damaged; restore", id="both"),
        pytest.param(
            b'{"version": 7, "more": 1}',
            GalleryError,
            "written by a newer edge; install that one again, or restore it, or remove it",
            id="newer",
        ),
        pytest.param(b" " * (MAX_BYTES + 1), FileError, "larger than 100 bytes", id="too large"),
    ],
)
def test_what_cannot_be_used_is_not_taken_for_absent(
    place: Place, data: bytes, error: type[EdgeError], says: str
):
    place.holds(data)
    with pytest.raises(error, match=says) as raised:
        place.file.read()
    assert str(raised.value).startswith(f"{place.path}: ")


def test_a_disk_that_does_not_give_it_is_another_error_than_damage(place: Place):
    place.path.mkdir(parents=True)
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        place.file.read()
    with pytest.raises(FileError, match="cannot be written: Is a directory; what was there stays"):
        place.file.write(Seen())


def test_a_directory_that_cannot_be_made_is_told(place: Place):
    place.path.parent.write_text("a file where the directory should be")
    with pytest.raises(FileError, match="state: cannot be made"):
        place.file.write(Seen())


def test_damage_at_the_start_is_an_error(place: Place):
    place.holds(b"{")
    with pytest.raises(GalleryError, match="damaged"):
        place.keeper()


def test_what_the_disk_did_not_give_at_the_start_is_read_later(
    place: Place, caplog: pytest.LogCaptureFixture
):
    place.path.mkdir(parents=True)
    keeper = place.keeper()
    assert (keeper.read_again(), keeper.value) == (False, Seen())
    assert "Is a directory" in (keeper.unread or "")
    assert [each.levelno for each in caplog.records] == [logging.ERROR], "the same is said once"
    place.path.rmdir()
    place.holds(b"{")
    assert (keeper.read_again(), keeper.read_again()) == (False, False)
    assert "damaged" in (keeper.unread or "")
    assert len(caplog.records) == 2
    assert all(each.getMessage().startswith("nothing newer is taken: ") for each in caplog.records)
    place.holds(b'{"version": 7}')
    assert (keeper.read_again(), keeper.value, keeper.unread) == (True, Seen(version=7), None)
    place.holds(b'{"version": 9}')
    assert (keeper.read_again(), keeper.value) == (True, Seen(version=7)), "what is known is not read again"


def test_what_cannot_be_written_changes_nothing(place: Place):
    keeper = place.keeper()
    keeper.write(Seen(version=1))
    place.path.unlink()
    place.path.mkdir()
    with pytest.raises(FileError, match="cannot be written"):
        keeper.write(Seen(version=2))
    assert keeper.value == Seen(version=1)
