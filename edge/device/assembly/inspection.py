"""What keeps a device from working as its settings say, as far as its own disk tells.

Opens no connection and no live camera, and changes nothing.
"""

import os
import shutil
import ssl
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from edge.camera.clips import check_playable
from edge.camera.network import Trust, parse
from edge.core import files
from edge.core.clock import SystemClock
from edge.core.errors import EdgeError
from edge.core.text import without_credentials
from edge.device.assembly.delivery import build_broker
from edge.device.assembly.stores import check_device_key
from edge.device.settings.load import Settings, credential_path
from edge.device.settings.tables import CameraSettings

MAX_ROOT_BYTES = 1 << 20
MAX_SEALING_KEYS = 2
"""Of a scope: the new one and the old, while it changes."""


def inspect(settings: Settings) -> list[str]:
    """Return what is wrong, a line each: the setting, what is wrong with it, what to do. None: no line.

    Models, gallery and remote gallery are not looked at: whoever loads them says what is wrong with them.
    """
    found = list(_directory(settings.state_dir))
    if not settings.cameras:
        found.append("cameras: there is none; add a table [cameras.front] with source or command")
    for name, camera in settings.cameras.items():
        key = f"cameras.{name}.{'source' if camera.command is None else 'command'}"
        found += [f"{key}: {problem}" for problem in _told(lambda camera=camera: _look_at(camera))]  # type: ignore[misc]
        if camera.ca_file is not None:
            trust = Trust(camera.ca_file)
            found += [f"cameras.{name}.ca_file: {problem}" for problem in _told(trust.context)]
    found += _told(lambda: build_broker(settings.mqtt))
    found += _told(lambda: check_device_key(settings))
    return found + list(_of_fleet(settings))


def _told(attempt: Callable[[], object]) -> list[str]:
    """Return why something cannot be done, nothing where it can."""
    try:
        attempt()
    except EdgeError as error:
        return [str(error)]
    except (OSError, ssl.SSLError) as error:
        return [error.strerror or str(error)]
    return []


def _directory(state_dir: Path) -> Iterator[str]:
    """Try whether the state directory can be written, or made; nothing is left of the try."""
    there = state_dir
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        if there == state_dir:
            with tempfile.TemporaryFile(dir=there):
                pass
        else:
            with tempfile.TemporaryDirectory(dir=there):
                pass
    except OSError as error:
        what = "cannot be written" if there == state_dir else f"cannot be made below {there}"
        yield f"state_dir: {state_dir} {what}: {error.strerror}; make it writable, or set another"


def _look_at(camera: CameraSettings) -> None:
    """Accept a camera whose program, device, clip or address is one.

    Raises:
        EdgeError, OSError: It is none; says why.
    """
    if camera.command is not None:
        if shutil.which(camera.command[0]) is None:
            raise FileNotFoundError(
                0, f"there is no program {camera.command[0]!r}; install it, or give its path"
            )
        return
    source = camera.source or ""
    if "://" in source:
        parse(source)
    elif source.startswith("/dev/"):
        if not Path(source).exists():
            raise FileNotFoundError(0, f"{source}: there is no such device")
        if not stat.S_ISCHR(Path(source).stat().st_mode):
            raise OSError(0, f"{source} is no camera but a file")
        if not os.access(source, os.R_OK | os.W_OK):
            raise PermissionError(0, f"{source} may not be opened; add the daemon's user to the group video")
    else:
        check_playable(Path(source), SystemClock())


def _of_fleet(settings: Settings) -> Iterator[str]:
    values = settings.sync
    if values.url is None or values.trusted_root is None or values.sealing_key is None:
        return
    root, key = values.trusted_root, credential_path(values.sealing_key)
    url = urlsplit(values.url)
    if url.scheme in ("", "file") and not Path(url.path).is_dir():
        yield f"sync.url: {without_credentials(values.url)}: there is no such directory"
    for problem in _told(lambda: files.read_bounded(root, MAX_ROOT_BYTES)):
        yield f"sync.trusted_root: {problem}"
    if not os.path.lexists(root):
        yield f"sync.trusted_root: {root}: it is not there; copy the fleet's newest root.json to it"
    advice = "copy it from the operator's keys/sealing directory"
    for problem in _told(lambda: files.read_keys(key, MAX_SEALING_KEYS, advice)):
        yield f"sync.sealing_key: {problem}"
