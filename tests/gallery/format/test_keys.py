"""The device's key: made once, private, never made where somebody else should have brought it."""

import pytest

from edge.core.errors import FileError
from edge.gallery.format.seal import device_key


def test_a_key_is_made_once_and_readable_by_its_owner_alone(tmp_path):
    path = tmp_path / "state" / "device.key"
    key = device_key(path, make=True)
    assert len(key) == 32
    assert device_key(path, make=True) == device_key(path, make=False) == key
    assert path.stat().st_mode & 0o777 == 0o600


def test_two_devices_have_two_keys(tmp_path):
    assert device_key(tmp_path / "a", make=True) != device_key(tmp_path / "b", make=True)


def test_a_key_that_should_be_there_is_not_made(tmp_path):
    with pytest.raises(FileError, match="there is no key"):
        device_key(tmp_path / "device.key", make=False)
    assert not (tmp_path / "device.key").exists()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        pytest.param("00" * 32, 0o644, "chmod 600", id="readable by others"),
        pytest.param("00" * 31, 0o600, "not a key", id="too short"),
        pytest.param("zz" * 32, 0o600, "not a key", id="no digits"),
        pytest.param("", 0o600, "not a key", id="empty"),
    ],
)
def test_a_key_that_cannot_be_used_is_kept_and_named(tmp_path, text: str, mode: int, why: str):
    path = tmp_path / "device.key"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(FileError, match=why):
        device_key(path, make=True)
    assert path.read_text() == text


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"state: cannot be made: Not a directory"):
        device_key(tmp_path / "file" / "state" / "device.key", make=True)
