"""Exit codes: those of the guide, on every path out of the program; Ctrl-C is quiet at any moment."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.cli.app import COMMANDS
from edge.core import files
from edge.core.errors import (
    EX_CONFIG,
    EX_FAILURE,
    EX_INTERRUPTED,
    EX_NO_FACE,
    EX_SUCCESS,
    EX_TERMINATED,
    EX_USAGE,
    EXIT_CODES,
)
from edge.core.types import Subject
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import environment_without_settings, load
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from tests.support.command_line import edge, write_config
from tests.support.gallery_samples import template, unit_rows
from tests.support.places import ROOT
from tests.support.waits import LIMIT_S, wait_until

SUCCESS, USAGE = EX_SUCCESS, EX_USAGE

INTERRUPTED_AT = """
import os, signal, sys
class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, CtrlC())
sys.argv = ["edge", *{arguments!r}]
from edge.__main__ import main
main()
"""
"""Runs `edge` and presses Ctrl-C when a module is about to be loaded."""


CAME_OF = [
    (["--version"], SUCCESS),
    (["schema"], SUCCESS),
    (["subjects", "list"], SUCCESS),
    (["subjects", "show", "nobody"], EX_FAILURE),
    (["enroll", "--csv", "none.csv"], EX_FAILURE),
    (["sync"], EX_CONFIG),
    (["nosuch"], USAGE),
    (["schema", "--nosuch"], USAGE),
    (["enroll"], USAGE),
    (["enroll", "p-1", "none.jpg"], EX_NO_FACE),
    (["identify", "none.jpg"], EX_NO_FACE),
    (["verify", "none.jpg", "none.jpg"], EX_NO_FACE),
    (["strangers", "purge"], USAGE),
    (["gallery", "purge", "--confirm", "another"], USAGE),
    (["journal", "undeliverable", "--retry", "--drop"], USAGE),
]
"""Commands, and the code that each ends with."""


def test_the_guide_has_the_table_of_the_code():
    guide = (ROOT / "deploy/OPERATING.md").read_text()
    table = guide.partition("## Exit codes")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| (\d+) \| (.+) \|$", table, re.MULTILINE)) == {
        str(code): told for code, told in EXIT_CODES.items()
    }


def test_every_row_of_the_table_is_walked_here():
    """By the tests below; each of them runs a real command."""
    walked = {code for _, code in CAME_OF} | {EX_INTERRUPTED, EX_TERMINATED}
    assert walked == EXIT_CODES.keys()


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line in which a command says why it failed; what came before is the log's."""
    *before, last = done.stderr.strip().splitlines()
    assert last.startswith("edge: "), done.stderr
    assert all(line.startswith("{") for line in before), done.stderr
    return last


@pytest.mark.parametrize(
    ("arguments", "code"),
    CAME_OF,
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_what_came_of_a_command_is_its_code(
    tmp_path: Path, models_dir: Path, arguments: list[str], code: int
):
    write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    takes_config = arguments[0] in (
        *("subjects", "sync", "enroll", "identify", "verify", "strangers", "gallery"),
    )
    done = edge(*arguments, config=tmp_path / "edge.toml" if takes_config else None)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def of_text(content: str | bytes, mode: int = 0o600) -> Callable[[Path], None]:
    def put(path: Path) -> None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    return put


def absent(path: Path) -> None:
    path.unlink(missing_ok=True)


def directory(path: Path) -> None:
    absent(path)
    path.mkdir()


def pipe(path: Path) -> None:
    absent(path)
    os.mkfifo(path)


def enrolled(config: Path) -> None:
    """Enrol somebody, so that there is a gallery under the device's key."""
    settings = load(config)
    model = load_manifest("sface-int8", settings.models_path).model_id
    gallery = Gallery.empty(model).with_subjects(
        [(Subject("p-1", "Ann"), [template(unit_rows(1, 128)[0], model)])]
    )
    gallery_store(settings).commit(gallery)


@pytest.mark.parametrize(
    ("put", "says"),
    [
        (absent, "No such file"),
        (directory, "Is a directory"),
        (pipe, "not a regular file"),
        (of_text(b"\xff\xfe\x00"), "not valid TOML"),
        (of_text("[mqtt"), "not valid TOML"),
        (of_text("x" * 300_000), "larger than"),
        (of_text("mqtt.hots = 1"), "mqtt.hots: unknown key"),
    ],
    ids=["absent", "directory", "pipe", "bytes", "torn", "huge", "misspelt"],
)
def test_settings_that_cannot_be_read_are_said_in_one_line(
    tmp_path: Path, put: Callable[[Path], None], says: str
):
    config = write_config(tmp_path)
    put(config)
    for command in ("run", "check"):
        done = edge(command, config=config)
        assert (done.returncode, says in one_line(done)) == (EX_CONFIG, True), done.stderr


@pytest.mark.parametrize("gallery", [True, False], ids=["gallery", "no gallery yet"])
@pytest.mark.parametrize(
    ("put", "says"),
    [
        (of_text(""), "this is not a key of 64"),
        (of_text("ab" * 31), "this is not a key of 64"),
        (of_text(b"\xff" * 64), "this is not a key of 64"),
        (of_text("ab" * 32, 0o644), "run chmod 600"),
        (directory, "Is a directory"),
        (pipe, "not a regular file"),
    ],
    ids=["empty", "short", "bytes", "open", "directory", "pipe"],
)
def test_a_damaged_device_key_is_said_in_one_line(
    tmp_path: Path, models_dir: Path, put: Callable[[Path], None], says: str, gallery: bool
):
    config = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    files.make_private_directory(tmp_path / "state")
    if gallery:
        enrolled(config)
    (tmp_path / "state/device.key").unlink(missing_ok=True)
    put(tmp_path / "state/device.key")
    done = edge("run", config=config)
    assert (done.returncode, says in one_line(done)) == (EX_CONFIG, True), done.stderr


def test_another_device_s_key_is_said_in_one_line(tmp_path: Path, models_dir: Path):
    front = 'cameras.front.source = "rtsp://10.0.0.5/live"'
    config = write_config(tmp_path, front, state_dir=tmp_path / "state", models_dir=models_dir)
    enrolled(config)
    files.write_key(tmp_path / "state/device.key", bytes(32))
    for command in (["run"], ["check"], ["subjects", "list"]):
        done = edge(*command, config=config)
        assert (done.returncode, "another device key" in one_line(done)) == (EX_CONFIG, True), done.stderr


@pytest.mark.parametrize("gallery", [True, False], ids=["gallery", "no gallery yet"])
def test_a_key_that_is_configured_and_not_there_is_said_in_one_line(
    tmp_path: Path, models_dir: Path, gallery: bool
):
    config = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    if gallery:
        enrolled(config)
    named = f"gallery.device_key = {json.dumps(str(tmp_path / 'none.key'))}"
    config = write_config(tmp_path, named, state_dir=tmp_path / "state", models_dir=models_dir)
    done = edge("run", config=config)
    assert (done.returncode, "there is no key; bring it back" in one_line(done)) == (EX_CONFIG, True), (
        done.stderr
    )


PLACES = [
    *((name, f"edge.cli.{place.module}") for name, place in COMMANDS.items()),
    *(("identify", module) for module in ("pydantic_core", "typer", "numpy", "cv2", "edge.face.session")),
]


@pytest.mark.parametrize(("command", "module"), PLACES, ids=[" ".join(place) for place in PLACES])
def test_ctrl_c_while_modules_load_is_quiet(command: str, module: str):
    code = INTERRUPTED_AT.format(module=module, arguments=[command, "--help"])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment_without_settings(),
    )
    assert (done.returncode, done.stdout, done.stderr) == (EX_INTERRUPTED, "", "")


def test_ctrl_c_at_work_is_quiet(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        config = write_config(tmp_path, 'mqtt.host = "127.0.0.1"', f"mqtt.port = {port}")
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "config", "status", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment_without_settings(),
        )
        try:
            silent.settimeout(LIMIT_S)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
            process.wait()
        connection.close()
    assert (process.returncode, said) == (EX_INTERRUPTED, b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_settings_that_may_not_be_read_are_said_in_one_line(tmp_path: Path):
    config = write_config(tmp_path)
    tmp_path.chmod(0o700)
    code = f"""
import os
import edge.cli.app, edge.cli.door.run, edge.device.daemon
os.setgid(65534), os.setuid(65534)
import sys
sys.argv = ["edge", "run", "--config", {str(config)!r}]
edge.cli.app.command_line()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env=environment_without_settings(),
    )
    assert (done.returncode, "Permission denied" in one_line(done)) == (EX_CONFIG, True), done.stderr


@contextmanager
def running(tmp_path: Path, models_dir: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """A daemon that is ready, and its log."""
    config = write_config(
        tmp_path, "mqtt.port = 1", 'log.format = "human"', state_dir=tmp_path / "state", models_dir=models_dir
    )
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "--config", str(config)],
            stderr=file,
            env=environment_without_settings(),
        )
    try:
        wait_until(lambda: " ready " in log.read_text() or process.poll() is not None, "ready")
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_a_second_sigterm_ends_a_daemon_at_once(tmp_path: Path, models_dir: Path):
    with running(tmp_path, models_dir) as (process, log):

        def ended() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        wait_until(ended, "its end")
        assert process.returncode == EX_TERMINATED, log.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_daemon_that_is_stopped_has_done_its_work(tmp_path: Path, models_dir: Path, signum: int):
    with running(tmp_path, models_dir) as (process, log):
        process.send_signal(signum)
        assert process.wait(LIMIT_S) == SUCCESS, log.read_text()
