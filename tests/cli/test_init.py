"""`edge init`: what it writes works, or it says what does not; nothing is lost by it."""

import os
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from edge.core.errors import ConfigError, UsageError
from edge.device.settings.load import load
from tests.support.broker import Mosquitto
from tests.support.command_line import environment_of, invoke, run
from tests.support.waits import LIMIT_S, wait_until


@pytest.fixture
def config(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a door is set up; its models are those of this machine."""
    monkeypatch.setenv("EDGE_MODELS_DIR", str(models_dir))
    return tmp_path / "edge.toml"


def options(config: Path, camera: str | Path, broker: str = "127.0.0.1:1") -> list[str]:
    state = config.parent / "state"
    return ["--camera", str(camera), "--broker", broker, "--state-dir", str(state), "--yes"]


def test_a_door_is_set_up_in_one_command(config: Path, media: Path, mosquitto: Mosquitto):
    clip, broker = media / "single_face.mp4", f"127.0.0.1:{mosquitto.port}"
    told = run("init", *options(config, clip, broker), "--device", "front-door", config=config)
    assert config.read_text().splitlines() == [
        'site = "home"',
        'device = "front-door"',
        f'state_dir = "{config.parent / "state"}"',
        "",
        "[cameras.front]",
        f'source = "{clip}"',
        "",
        "[mqtt]",
        'host = "127.0.0.1"',
        f"port = {mosquitto.port}",
    ]
    assert config.stat().st_mode & 0o777 == 0o600
    assert (config.parent / "state/device.key").stat().st_mode & 0o777 == 0o600
    assert "sface-int8: verified" in told
    assert "lets the door in with MQTT 5" in told
    assert f"enrol somebody: edge enroll p-1 PHOTO --label NAME --config {config}" in told
    run("check", config=config)


def test_what_does_not_work_is_told_and_what_was_written_stays(config: Path):
    done = invoke("init", *options(config, "/dev/video99"), config=config)
    assert done.exit_code == 1
    assert "/dev/video99" in done.output
    assert "no broker listens at 127.0.0.1:1" in done.output
    assert "-> start it or correct mqtt.host and mqtt.port" in done.output
    assert load(config).cameras["front"].source == "/dev/video99"


def test_settings_are_replaced_only_when_that_is_said(config: Path, media: Path):
    config.write_text("before")
    config.chmod(0o640)
    refused = invoke("init", *options(config, media / "single_face.mp4"), config=config)
    assert isinstance(refused.exception, ConfigError)
    assert "--replace keeps it" in str(refused.exception)
    assert config.read_text() == "before"
    invoke("init", *options(config, media / "single_face.mp4"), "--replace", config=config)
    assert config.with_name("edge.toml.old").read_text() == "before"
    assert config.stat().st_mode & 0o777 == 0o640
    assert load(config).device == "door"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--site", "A b"], "site: must be 1 to 32 of a-z, 0-9 and -"),
        (["--broker", "host:x"], "--broker: 'host:x' is not HOST or HOST:PORT"),
    ],
)
def test_what_no_door_can_have_is_not_written(config: Path, arguments: list[str], says: str):
    done = invoke("init", *options(config, "/dev/video99"), *arguments, config=config)
    assert says in str(done.exception)
    assert not config.exists()


def test_nobody_is_asked_where_nobody_can_answer(config: Path):
    done = invoke("init", config=config)
    assert isinstance(done.exception, UsageError)
    assert not config.exists()


def test_a_program_may_be_the_camera_and_tls_is_spoken_at_its_port(config: Path):
    command = "rpicam-vid -n -t 0 --codec mjpeg -o -"
    invoke("init", *options(config, command, "broker.example.invalid:8883"), config=config)
    settings = load(config)
    assert settings.cameras["front"].command == tuple(command.split())
    assert settings.mqtt.tls


def conversation(terminal: int, answers: dict[bytes, str]) -> bytes:
    """Answer each question on a terminal once it is asked, to the end; returns what was shown."""
    shown = b""
    for question, answer in answers.items():
        while question not in shown:
            piece = heard(terminal)
            assert piece, shown.decode()
            shown += piece
        if question.startswith(b"password"):  # what is typed before the echo is off is thrown away
            wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, "the echo is off")
        os.write(terminal, f"{answer}\n".encode())
    while piece := heard(terminal):
        shown += piece
    return shown


def heard(terminal: int) -> bytes:
    """Return what is shown next, nothing when the other end is closed."""
    assert select.select([terminal], [], [], LIMIT_S)[0], "nothing is shown any more"
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_on_a_terminal_it_asks(config: Path):
    ours, theirs = os.openpty()
    words = ["init", "--state-dir", str(config.parent / "state"), "--config", str(config)]
    answers = {
        b"site [home]:": "Bad Name\nhq",
        b"name of this door [door]:": "side",
        b"camera: device, stream or clip": "/dev/video99",
        b"broker: HOST or HOST:PORT [127.0.0.1]:": "127.0.0.1:1",
        b"user at the broker, empty for none:": "hq/side",
        b"password, empty for none:": "planted",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "edge", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment_of(config) | {"TERM": "dumb", "EDGE_MODELS_DIR": os.environ["EDGE_MODELS_DIR"]},
    ) as child:
        os.close(theirs)
        try:
            shown = conversation(ours, answers)
        finally:
            child.kill()
            os.close(ours)
    assert b"use 1 to 32 of a-z" in shown
    assert b"no broker listens at 127.0.0.1:1" in shown
    assert b"then run the door: edge run" in shown
    assert b"planted" not in shown
    settings = load(config)
    assert (settings.site, settings.device, settings.mqtt.username) == ("hq", "side", "hq/side")
    password = config.with_name("mqtt.password")
    assert settings.mqtt.password_file == password
    assert password.read_text() == "planted\n"
    assert password.stat().st_mode & 0o777 == 0o600
