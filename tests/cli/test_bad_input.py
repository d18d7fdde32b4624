"""Bad input at the command line: one line that says what, where and how to mend it, and never a traceback."""

import base64
import json
import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge.camera.photo import decode_photo
from edge.cli.app import app
from edge.cli.fleet import command as cli_command
from edge.cli.fleet import config as config_push
from edge.cli.fleet.command import check_args, read_args, send_command
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError, MediaError
from edge.core.types import Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.messages import VERBS, ResponsePayload
from tests.support.gallery_samples import template, unit_rows


def edge(directory: Path, *arguments: str, config: str = "") -> subprocess.CompletedProcess[str]:
    """Run `edge` as an operator does, in its own process."""
    (directory / "edge.toml").write_text(config or 'site = "hq"\n')
    environment = {**os.environ, "EDGE_STATE_DIR": str(directory / "state")}
    return subprocess.run(
        [sys.executable, "-m", "edge", *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


LONG = "a" * 32


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["schema", "--out", "/proc/x"], "/proc/x: cannot be written", id="schema"),
        pytest.param(["demo", "--out", "/proc/x/y"], "--out: /proc/x/y cannot be written", id="demo"),
        pytest.param(
            ["enroll", "--csv", "none.csv", "--report", "/proc/x/y"],
            "--report: /proc/x/y cannot be written",
            id="the report of an enrolment",
        ),
        pytest.param(
            ["fleet", "reembed", "--photos", ".", "--model", "sface-int8", "--report", "/proc/x"],
            "--report: /proc/x cannot be written",
            id="the report of a re-embedding",
        ),
        pytest.param(
            ["fleet", "enroll-device", LONG, "--out", "c", "-c", "edge.toml"], "1 to 64", id="65 characters"
        ),
        pytest.param(["fleet", "enroll-device", "b", "--out", "c", "--host", "tür"], "xn--", id="no ASCII"),
        pytest.param(["fleet", "command", "door", "dance"], "'dance' is no verb", id="an unknown verb"),
    ],
)
def test_it_is_told_in_one_line(tmp_path: Path, arguments: list[str], told: str):
    done = edge(tmp_path, *arguments, config=f'site = "{LONG}"\n')
    assert done.returncode in (1, 78)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("edge: ")
    assert told in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("before", [None, b"", b"of yesterday"])
def test_what_is_refused_leaves_the_place_of_its_report_as_it_was(tmp_path: Path, before: bytes | None):
    report = tmp_path / "report.csv"
    if before is not None:
        report.write_bytes(before)
    done = edge(tmp_path, "enroll", "--csv", "none.csv", "--report", "report.csv")
    assert done.returncode == 1, done.stderr
    assert (report.read_bytes() if report.exists() else None) == before


def test_a_certificate_ends_with_its_authority_however_many_days_are_asked_for(tmp_path: Path):
    done = edge(tmp_path, "fleet", "enroll-device", "door", "--out", "c", "--days", "3000000")
    assert (done.returncode, (tmp_path / "c" / "device.crt").exists()) == (0, True), done.stderr


@pytest.mark.parametrize("version", [0, -1, 2**53])
def test_a_push_of_an_impossible_version_is_refused(tmp_path: Path, version: int):
    (tmp_path / "patch.toml").write_text("[decision]\nmargin = 0.1\n")
    assert edge(tmp_path, "config", "keygen", "push.pem").returncode == 0
    arguments = ("--scope", "fleet", "--key", "push.pem", "--version", str(version))
    done = edge(tmp_path, "config", "sign", "patch.toml", *arguments)
    assert done.returncode == 78
    assert done.stderr.startswith(f"edge: --version: {version} is not in 1 to ")


@pytest.mark.parametrize(
    ("verb", "said", "args"),
    [
        pytest.param("revoke", "subject=1042", {"subject": "1042"}, id="an id of digits"),
        pytest.param("revoke", "subject=true", {"subject": "true"}, id="an id like a word of JSON"),
        pytest.param("enroll", "label=7", {"label": "7"}, id="a label, which may be absent"),
        pytest.param("enroll", "visit=v-1e5", {"visit": "v-1e5"}, id="a visit"),
        pytest.param("suspend", "lift=true", {"lift": True}, id="yes or no"),
        pytest.param("enroll", 'groups=["a"]', {"groups": ["a"]}, id="a list"),
        pytest.param("reload", "x=1", {"x": 1}, id="unknown, as it is"),
    ],
)
def test_what_a_verb_takes_as_text_is_text(verb: str, said: str, args: dict[str, Any]):
    assert read_args(verb, [said], None) == args


def test_ids_of_digits_are_taken_by_the_verb():
    args = read_args("revoke", ["subject=1042"], None)
    assert VERBS["revoke"].model_validate(args).subject == "1042"  # type: ignore[attr-defined]


class Heard:
    """In the place of a listener: answers what was published after something that is no answer."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def refusal(self) -> None:
        return None

    def publish(self, topic: str, data: bytes, **_: Any) -> None:
        transaction = json.loads(data)["transaction"]
        answer = ResponsePayload(transaction=transaction, verb="subjects", status="ok", data={"n": 1})
        for payload in (b"nonsense", b"{}", b"\xff", answer.model_dump_json().encode()):
            self.messages.put(type("Message", (), {"payload": payload, "correlation": None})())


def test_what_others_publish_below_response_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli_command, "site_listener", Heard)
    answer = send_command(load(None, {}), "door", "subjects", {}, None, wait_s=5, clock=SystemClock())
    assert answer.data == {"n": 1}


def test_a_label_is_shown_as_it_is(tmp_path: Path, models_dir: Path):
    config = tmp_path / "edge.toml"
    config.write_text(f'state_dir = "{tmp_path}/state"\nmodels_dir = "{models_dir}"\n')
    settings = load(config)
    store, model = gallery_store(settings), build_recognizer(settings).embedder.model_id
    person = Subject("p-1", "Bob [/x] :door:")
    store.commit(Gallery.empty(model).with_subjects([(person, [template(unit_rows(1)[0], model)])]))
    done = CliRunner().invoke(app, ["subjects", "list", "-c", str(config)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "Bob [/x] :door:" in done.output


def test_a_source_with_an_address_in_brackets_is_shown_whole(tmp_path: Path, models_dir: Path):
    config = tmp_path / "edge.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\nmodels_dir = "{models_dir}"\n'
        '[cameras.front]\nsource = "rtsp://u:p@[fe80::1]/stream"\n'
    )
    done = CliRunner().invoke(app, ["check", "-c", str(config)], env={"COLUMNS": "200"})
    assert "camera     front: rtsp://[fe80::1]/stream" in done.output


def test_what_devices_say_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def listen(*_: Any) -> Heard:
        heard = Heard()
        report = {
            **{
                "schema": "edge.config-reported/1",
                "at": "2026-11-24T12:00:00.000Z",
                "status": "rejected",
            },
            **{"layer": "device", "version": 1, "keys": {}, "error": "no [/model] here"},
            **{"versions": {}, "effective": "0" * 64},
        }
        message = {"topic": "edge/v1/home/door/config/reported", "payload": json.dumps(report).encode()}
        heard.messages.put(type("Message", (), message)())
        return heard

    monkeypatch.setattr(config_push, "site_listener", listen)
    done = CliRunner().invoke(app, ["config", "status"], env={"COLUMNS": "200"})
    assert "no [/model] here" in done.output, done.exception


@pytest.mark.parametrize(
    ("verb", "args", "says"),
    [
        pytest.param("identify", {}, "identify: photo: field required", id="nothing"),
        pytest.param("revoke", {"subject": "p", "x": 1}, "revoke: x: extra inputs", id="unknown"),
        pytest.param("suspend", {"subject": "p", "lift": 7}, "suspend: lift: input should", id="wrong type"),
    ],
)
def test_what_a_verb_does_not_take_is_not_sent(verb: str, args: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        check_args(verb, args)


def test_a_photo_that_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(MediaError, match="cannot be read"):
        read_args("identify", [], tmp_path / "no.jpg")
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(MediaError, match="not a photo"):
        read_args("identify", [], tmp_path / "a.jpg")


def test_a_photo_that_is_too_large_for_a_message_is_made_smaller_and_that_is_said(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    small = cv2.imencode(".jpg", noise)[1].tobytes()
    large = cv2.imencode(".png", cv2.resize(noise, (4000, 3000)))[1].tobytes()
    told: list[str] = []
    for name, data in {"small.jpg": small, "large.png": large}.items():
        (tmp_path / name).write_bytes(data)
        photo = read_args("identify", [], tmp_path / name, told.append)["photo"]
        check_args("identify", {"photo": photo})
        sent = base64.b64decode(photo)
        assert (sent == small) if name == "small.jpg" else (decode_photo(sent, "x").shape[1] <= 1600)
    [line] = told
    assert "large.png" in line
    assert "too many for a message" in line
