"""Bad input at the command line: one line that says what, where and how to mend it, and never a traceback."""

import json
import os
import queue
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from edge.cli.fleet import config as config_push
from edge.core.types import Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from tests.support.command_line import invoke, run, write_config
from tests.support.gallery_samples import template, unit_rows
from tests.support.waits import LIMIT_S


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
        timeout=LIMIT_S,
        check=False,
    )


LONG = "a" * 32


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(["schema", "--out", "/proc/x"], "/proc/x: cannot be written", id="schema"),
        pytest.param(["demo", "--json-file", "/proc/x"], "--json-file: /proc/x cannot be written", id="demo"),
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
    run("config", "keygen", tmp_path / "push.pem")
    arguments = ("--scope", "fleet", "--key", "push.pem", "--version", str(version))
    done = edge(tmp_path, "config", "sign", "patch.toml", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"edge: --version: {version} is not in 1 to ")


def test_a_label_is_shown_as_it_is(tmp_path: Path, models_dir: Path):
    config = write_config(tmp_path, state_dir=tmp_path / "state", models_dir=models_dir)
    settings = load(config)
    store, model = gallery_store(settings), build_recognizer(settings).embedder.model_id
    person = Subject("p-1", "Bob [/x] :door:")
    store.commit(Gallery.empty(model).with_subjects([(person, [template(unit_rows(1)[0], model)])]))
    assert "Bob [/x] :door:" in run("subjects", "list", config=config)


def test_a_source_with_an_address_in_brackets_is_shown_whole(tmp_path: Path, models_dir: Path):
    front = 'cameras.front.source = "rtsp://u:p@[fe80::1]/stream"'
    config = write_config(tmp_path, front, state_dir=tmp_path / "state", models_dir=models_dir)
    assert "camera     front: rtsp://[fe80::1]/stream" in invoke("check", config=config).output


class Shown:
    """In the place of a listener: what was published before."""

    def __init__(self) -> None:
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_what_devices_say_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def listen(*_: Any) -> Shown:
        heard = Shown()
        report = {
            **{
                "schema": "edge.config-reported/1",
                "at": "2026-11-24T12:00:00.000Z",
                "status": "rejected",
            },
            **{"layer": "device", "version": 1, "keys": {}, "error": "no [/model] here"},
            **{"versions": {}, "effective": "0" * 64},
        }
        said = {"payload": json.dumps(report).encode(), "retained": True}
        heard.messages.put(type("Message", (), {"topic": "edge/v1/home/door/config/reported", **said})())
        return heard

    monkeypatch.setattr(config_push, "site_listener", listen)
    done = invoke("config", "status")
    assert "no [/model] here" in done.output, done.exception
