"""Private directories, files that one process holds, and lines of which none takes another with it."""

import errno
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import ConfigError, EdgeError, FileError, GalleryError
from edge.core.files import (
    MAX_AUDIT_BYTES,
    PRIVATE,
    Audit,
    append_line,
    check_database,
    make_private,
    make_private_directory,
    open_to_shred,
    read_bounded,
    read_key,
    read_toml,
    shred,
    sole_daemon,
    sole_user,
    take_lock,
    write_whole,
)
from tests.support.clock import SteppedClock


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(None, "cannot read the labels: No such file or directory", id="none"),
        pytest.param(b"#" * 101, "larger than 100 bytes; this is not the labels", id="too large"),
        pytest.param(b"a = ", "not valid TOML", id="torn"),
        pytest.param(b"\xff", "not valid TOML", id="no UTF-8"),
        pytest.param(b"a = " + b"[" * 90, "not valid TOML", id="deep"),
    ],
)
def test_a_file_that_people_write_is_refused_in_one_line(tmp_path: Path, data: bytes | None, problem: str):
    path = tmp_path / "labels.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(GalleryError, match=rf"labels\.toml: {problem}"):
        read_toml(path, 100, "labels", GalleryError)
    path.write_bytes(b"[clips]\na = 1" + b" " * 87)
    assert read_toml(path, 100, "labels", GalleryError) == {"clips": {"a": 1}}


def test_a_private_directory_is_its_owners_alone(tmp_path: Path):
    make_private_directory(tmp_path / "state" / "keys")
    assert mode(tmp_path / "state" / "keys") == 0o700
    (tmp_path / "state" / "keys").chmod(0o755)
    make_private_directory(tmp_path / "state" / "keys")
    assert mode(tmp_path / "state" / "keys") == 0o755, "one that is there is left as it is"


@pytest.mark.parametrize("refused", [FileError, GalleryError])
def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path, refused: type[EdgeError]):
    (tmp_path / "state").write_text("")
    with pytest.raises(refused, match=r"state/keys: cannot be made: Not a directory"):
        make_private_directory(tmp_path / "state" / "keys", refused)


def test_a_lock_that_somebody_holds_is_waited_for_no_longer_than_asked(tmp_path: Path):
    ticks = iter(range(100))
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open("w") as wanted:
        assert take_lock(held.fileno())
        assert not take_lock(wanted.fileno())
        assert not take_lock(wanted.fileno(), 3.0, lambda: float(next(ticks)))
        assert next(ticks) == 4
        held.close()
        assert take_lock(wanted.fileno(), 3.0)


def test_a_lock_is_taken_as_soon_as_it_is_free(tmp_path: Path):
    with (tmp_path / "lock").open("w") as held, (tmp_path / "lock").open("w") as wanted:
        assert take_lock(held.fileno())
        looks = iter([lambda: 0.0, lambda: 1.0, lambda: held.close() or 2.0])
        assert take_lock(wanted.fileno(), 3.0, lambda: next(looks)()), "it went free while somebody waited"


def test_one_process_at_a_time_uses_what_a_lock_file_guards(tmp_path: Path):
    path, clock = tmp_path / "sync" / "lock", SteppedClock()
    with sole_user(path, 0.0, clock.monotonic):
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
        with pytest.raises(FileError, match=r"lock: another process is at it; try again later"):
            sole_user(path, 0.0, clock.monotonic).__enter__()
    with sole_user(path, 0.0, clock.monotonic):
        pass


ROFS = errno.EROFS


def failing(monkeypatch: pytest.MonkeyPatch, error: int, modes: tuple[str, ...]) -> None:
    """Let the lock not be opened to append ("a") or to read ("r"), as on a bad disk."""
    really: Callable[..., int] = os.open

    def open_(path: Path, flags: int, *args: Any, **options: Any) -> int:
        mode = "a" if flags & os.O_APPEND else "r"
        if Path(path).name == "daemon.lock" and mode in modes:
            raise OSError(error, os.strerror(error), str(path))
        return really(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", open_)


def test_the_state_directory_is_held_and_given_back(tmp_path: Path):
    with sole_daemon(tmp_path / "state"), pytest.raises(ConfigError, match="another edge daemon"):
        sole_daemon(tmp_path / "state").__enter__()
    with sole_daemon(tmp_path / "state"):
        pass


@pytest.mark.parametrize("error", [errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_refuses_is_no_reason_to_stay_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
):
    with sole_daemon(tmp_path):
        pass
    failing(monkeypatch, error, ("a",))
    with sole_daemon(tmp_path), pytest.raises(ConfigError, match="another edge daemon"):
        sole_daemon(tmp_path).__enter__()
    assert os.strerror(error) in caplog.text


def test_a_disk_that_cannot_even_be_read_is_no_reason_to_stay_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with sole_daemon(tmp_path):
        pass
    failing(monkeypatch, errno.EIO, ("a", "r"))
    with sole_daemon(tmp_path):
        assert "nobody is kept from starting a second daemon" in caplog.text


def permissions(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sole_daemon(state):
        pass
    failing(monkeypatch, errno.EACCES, ("a",))


def never_used(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.mkdir()
    failing(monkeypatch, ROFS, ("a",))


def a_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_text("")


def below_a_file(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.parent.rmdir()
    state.parent.write_text("")


@pytest.mark.parametrize("spoil", [permissions, never_used, a_file, below_a_file])
def test_a_wrong_state_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path, pytest.MonkeyPatch], None]
):
    state = tmp_path / "parent" / "state"
    state.parent.mkdir()
    spoil(state, monkeypatch)
    with pytest.raises(ConfigError, match=r"state_dir: cannot write .*; make it writable"):
        sole_daemon(state).__enter__()


def lines(path: Path) -> list[int]:
    """Return the numbers that can be read."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line)["n"])
        except ValueError:
            continue
    return found


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param("", id="whole"),
        pytest.param("{", id="one character"),
        pytest.param('{"n": 7, "verb": "rev', id="half a line"),
        pytest.param('{"n": 7}x', id="all but its end"),
    ],
)
def test_a_line_that_a_power_cut_tore_takes_no_other_with_it(tmp_path: Path, torn: str):
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    audit.note({"n": 1})
    with path.open("a") as file:
        file.write(torn)
    audit.note({"n": 2})
    audit.note({"n": 3})
    assert lines(path) == [1, 2, 3]
    assert path.read_text().count("\n\n") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_long_makes_room(tmp_path: Path):
    path = tmp_path / "commands" / "audit.jsonl"
    audit = Audit(path)
    audit.note({"n": 1, "x": "x" * MAX_AUDIT_BYTES})
    audit.note({"n": 2})
    assert (lines(path), lines(path.with_suffix(".old.jsonl"))) == ([2], [1])


def test_a_link_in_its_place_is_not_followed(tmp_path: Path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="cannot be written"):
        Audit(tmp_path / "audit.jsonl").note({"n": 1})
    assert not (tmp_path / "elsewhere").exists()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_directory(path: Path) -> None:
    path.mkdir()


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


IN_ITS_PLACE = [a_pipe, a_device, a_directory, a_socket]


@contextmanager
def at_once() -> Iterator[None]:
    """Fail where the body waits: what blocks in the kernel is interrupted after 5 s."""

    def interrupted(*_: object) -> None:
        raise AssertionError("it waited for what is no file")

    before = signal.signal(signal.SIGALRM, interrupted)
    signal.alarm(5)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def toml(path: Path) -> None:
    read_toml(path, 100, "configuration", ConfigError)


def lock(path: Path) -> None:
    with sole_user(path, 0, SteppedClock().monotonic):
        pass


def daemon(path: Path) -> None:
    with sole_daemon(path.parent):
        pass


@pytest.mark.parametrize("put", IN_ITS_PLACE)
@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda path: read_bounded(path, 100), id="read"),
        pytest.param(lambda path: append_line(path, "x"), id="append"),
        pytest.param(read_key, id="key"),
        pytest.param(toml, id="toml"),
        pytest.param(lock, id="lock"),
        pytest.param(daemon, id="daemon"),
        pytest.param(check_database, id="database"),
    ],
)
def test_nobody_waits_for_what_is_no_file(
    tmp_path: Path, put: Callable[[Path], None], use: Callable[[Path], object]
):
    path = tmp_path / "daemon.lock"
    put(path)
    with at_once(), pytest.raises((FileError, ConfigError)) as told:
        use(path)
    assert str(told.value).count("\n") == 0
    assert path.name in str(told.value)


@pytest.mark.parametrize("put", [a_pipe, a_device, a_socket])
def test_a_file_takes_the_place_of_what_is_none(tmp_path: Path, put: Callable[[Path], None]):
    path = tmp_path / "state.json"
    put(path)
    with at_once():
        write_whole(path, b"{}")
    assert path.lstat().st_mode == stat.S_IFREG | PRIVATE


@pytest.mark.parametrize("put", [a_pipe, a_device, a_socket])
def test_what_is_no_file_is_deleted_and_not_overwritten(tmp_path: Path, put: Callable[[Path], None]):
    path = tmp_path / "sealed"
    put(path)
    with at_once():
        make_private(path)
        assert open_to_shred(path) is None
        shred(path)
    assert not path.is_symlink()
    assert not path.exists()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_what_sqlite_keeps_beside_a_database_is_a_file(tmp_path: Path, suffix: str):
    path = tmp_path / "outbox.sqlite"
    path.touch()
    check_database(path)
    path.unlink()
    os.mkfifo(path.with_name(path.name + suffix))
    with pytest.raises(FileError, match="is not a file; remove it"):
        check_database(path)
