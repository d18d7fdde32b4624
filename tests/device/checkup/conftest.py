"""A door in a folder, whose faults a test plants, and a broker with the access rules of the guide."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.broker import Mosquitto
from tests.support.certificates import Authority
from tests.support.command_line import write_config
from tests.support.places import ROOT

USER, PASSWORD = "hq/door-03", "planted-password"


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca").make()


@pytest.fixture
def start_broker(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Mosquitto]]:
    """Starts brokers as deploy/mosquitto sets them up: passwords, access rules, TLS."""
    started: list[Mosquitto] = []

    def start(*more: str, days: int = 400, rules: str = "") -> Mosquitto:
        folder = tmp_path / f"broker-{len(started)}"
        folder.mkdir()
        passwords, acl = folder / "passwords", folder / "acl"
        passwords.touch()
        for user, password in ((USER, PASSWORD), ("building", "pw")):
            command = ["mosquitto_passwd", "-b", str(passwords), user, password]
            subprocess.run(command, check=True, capture_output=True)
        acl.write_text(rules or (ROOT / "deploy/mosquitto/acl").read_text())
        certificate, key = authority.sign(f"broker{days}", "broker", "IP:127.0.0.1", days=days)
        tls = (f"cafile {authority.file}", f"certfile {certificate}", f"keyfile {key}")
        lines = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}", *more)
        started.append(Mosquitto(folder, lines, listener=tls).start())
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def door(
    tmp_path: Path, enrolled_state: Path, models_dir: Path, media: Path, authority: Authority
) -> Callable[..., Path]:
    """Returns the edge.toml of a door where all is right, but for `lines` and settings given."""

    def make(*lines: str, port: int = 1, camera: str = "", **settings: str | int | Path) -> Path:
        folder = tmp_path / "door"
        if not folder.exists():
            folder.mkdir()
            shutil.copytree(enrolled_state, folder / "state", symlinks=True)
            (folder / "state").chmod(0o700)
            (folder / "password").write_text(PASSWORD)
            (folder / "password").chmod(0o600)
        path = write_config(
            folder,
            f'mqtt = {{ host = "127.0.0.1", port = {port}, tls = true, ca_file = "{authority.file}", '
            f'username = "{USER}", password_file = "{folder / "password"}" }}',
            camera or f'cameras.front.source = "{media / "single_face.mp4"}"',
            *lines,
            **{"site": "hq", "device": "door-03", "state_dir": folder / "state", "models_dir": models_dir}
            | settings,
        )
        path.chmod(0o640)
        return path

    return make
