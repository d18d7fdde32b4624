"""What the page needs is fetched once and verified, and served on this machine alone."""

import hashlib
import io
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from edge.core.download import PinnedFile
from edge.core.errors import DownloadError
from edge.lab.demo.page import SERVED_AS, SOURCES, NpmFile, fetch_npm, served

SCRIPT = b"var mqtt = {};\n"
WANTED = NpmFile(
    "mqtt@0.0.0", "package/mqtt.js", PinnedFile("mqtt.js", hashlib.sha256(SCRIPT).hexdigest(), len(SCRIPT))
)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of npm that brings the archive of this name; it notes each call in `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    archive = tmp_path / "archive.tgz"
    program = folder / "npm"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncp {archive} "$5/" || exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return archive


def pack(archive: Path, content: bytes, name: str = WANTED.member) -> None:
    with tarfile.open(archive, "w:gz") as package:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        package.addfile(entry, io.BytesIO(content))


def test_a_file_out_of_a_package_is_fetched_once(npm: Path, tmp_path: Path):
    pack(npm, SCRIPT)
    for _ in range(2):
        assert fetch_npm(WANTED, tmp_path / "kept").read_bytes() == SCRIPT
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.split()[0] == "pack"
    assert "--ignore-scripts" in call
    assert [path.name for path in (tmp_path / "kept").iterdir() if path.name != ".lock"] == ["mqtt.js"]


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        pytest.param(b"var harm = {};\n", WANTED.member, "not the pinned file", id="another file"),
        pytest.param(SCRIPT, "package/other.js", "has no package/mqtt.js", id="no such file"),
        pytest.param(None, "", "damaged archive", id="no archive"),
    ],
)
def test_what_is_not_the_pinned_file_is_refused(
    npm: Path, tmp_path: Path, content: bytes | None, name: str, told: str
):
    if content is None:
        npm.write_bytes(b"torn")
    else:
        pack(npm, content, name)
    with pytest.raises(DownloadError, match=told):
        fetch_npm(WANTED, tmp_path / "kept")
    assert not (tmp_path / "kept" / "mqtt.js").exists()


def test_without_a_package_or_without_npm_one_line_says_so(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(DownloadError, match="npm cannot bring it: cp: "):
        fetch_npm(WANTED, tmp_path / "kept")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match=r"mqtt@0\.0\.0: npm is not installed"):
        fetch_npm(WANTED, tmp_path / "kept")


def test_the_folder_is_served_with_its_types_and_nothing_beside_it():
    with served(SOURCES) as address:
        assert address.startswith("http://127.0.0.1:")
        for path in SOURCES.iterdir():
            with urllib.request.urlopen(address + path.name) as answer:
                assert answer.headers["Content-Type"] == SERVED_AS[path.suffix]
                assert answer.read() == path.read_bytes()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}../../Makefile")
        refused.value.close()
        assert refused.value.code == 404
