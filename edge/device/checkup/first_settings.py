"""The first settings of a door: written, with its key and its models, so that it can be tried at once."""

import json
import os
import shlex
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path

from edge.core import files
from edge.core.download import Progress
from edge.core.errors import ConfigError
from edge.device.settings.load import Settings, load
from edge.face.manifest import load_manifest, recommended_models
from edge.face.weights import fetch
from edge.gallery.store.sealed import device_key

TLS_PORT = 8883
"""Where brokers speak TLS. Source: IANA, secure-mqtt."""


@dataclass(frozen=True, slots=True)
class FirstAnswers:
    """What has to be known of a door. `camera` is a device, a stream, a clip, or a program's command line.

    `broker` is HOST or HOST:PORT; at port 8883 TLS is spoken.
    """

    site: str
    device: str
    camera: str
    broker: str
    ca_file: Path | None = None
    username: str | None = None
    password_file: Path | None = None
    state_dir: Path | None = None

    def toml(self) -> str:
        """Return the settings file: what is not said has its default.

        Raises:
            ConfigError: The broker's port is no number.
        """
        lines = [f"site = {_text(self.site)}", f"device = {_text(self.device)}"]
        lines += [f"state_dir = {_text(self.state_dir.absolute())}"] if self.state_dir else []
        lines += ["", "[cameras.front]", self._camera(), "", "[mqtt]", *self._broker()]
        return "\n".join(lines) + "\n"

    def _camera(self) -> str:
        is_program = " " in self.camera and "://" not in self.camera and not Path(self.camera).exists()
        if not is_program:
            return f"source = {_text(self.camera)}"
        return f"command = [{', '.join(map(_text, shlex.split(self.camera)))}]"

    def _broker(self) -> list[str]:
        host, _, port = self.broker.partition(":")
        if port and not port.isdigit():
            raise ConfigError(f"--broker: {self.broker!r} is not HOST or HOST:PORT")
        lines = [f"host = {_text(host)}", *([f"port = {port}"] if port else [])]
        lines += ["tls = true"] if self.ca_file or port == str(TLS_PORT) else []
        lines += [f"ca_file = {_text(self.ca_file.absolute())}"] if self.ca_file else []
        lines += [f"username = {_text(self.username)}"] if self.username else []
        lines += [f"password_file = {_text(self.password_file.absolute())}"] if self.password_file else []
        return lines


def _text(value: str | Path) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def write_settings(path: Path, text: str) -> Path | None:
    """Write the settings file; returns where the one that was there is kept.

    A new one is its owner's alone: it may hold a camera's password. One that is replaced keeps its rights.

    Raises:
        ConfigError: The settings cannot be used, or the file cannot be written.
    """
    load(None, tomllib.loads(text))
    kept = None
    before = path.stat() if path.exists() else None
    try:
        if before is not None:
            kept = path.with_name(f"{path.name}.old")
            path.replace(kept)
        files.write_whole(path, text.encode())
        if before is not None:
            os.chown(path, before.st_uid, before.st_gid)
            path.chmod(stat.S_IMODE(before.st_mode))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    return kept


def write_password(path: Path, password: str) -> None:
    """Write the broker's password for its owner alone.

    Raises:
        FileError: It cannot be written.
    """
    files.write_whole(path, f"{password}\n".encode())


def make_key(settings: Settings) -> Path:
    """Make the device's key where there is none; returns its place.

    Raises:
        FileError: It cannot be made, or cannot be used.
    """
    device_key(settings.device_key_path, make=settings.gallery.device_key is None)
    return settings.device_key_path


def wanted_models(settings: Settings, *, recommended: bool) -> tuple[str, ...]:
    """Return the names of the models that these settings need, and of those that are recommended."""
    values = settings.recognition
    return (values.detector, values.embedder, *(recommended_models() if recommended else ()))


def fetch_model(name: str, settings: Settings, progress: Progress) -> Path:
    """Install a model that is not there yet.

    Raises:
        ModelError: It cannot be had; says why.
    """
    manifest = load_manifest(name)
    return fetch(manifest, settings.models_path, mirror=settings.models_mirror, progress=progress)
