"""`edge support`: what is sent helps, and holds nothing that nobody else may know."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.core import files
from edge.device.assembly.stores import gallery_store
from edge.device.settings.load import load
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from tests.device.checkup.conftest import PASSWORD
from tests.support.command_line import invoke

Door = Callable[..., Path]

CAMERA_PASSWORD, URL_TOKEN, ARGUMENT = "planted-camera", "planted-token", "planted-argument"
API_KEY, SITE_SECRET = "planted-api-key", bytes(range(32))


@pytest.fixture
def planted(door: Door, tmp_path: Path) -> Path:
    """A door with secrets in every place that may hold one, and a log with secrets and names."""
    (tmp_path / "api").write_text(API_KEY)
    files.write_key(tmp_path / "secret", SITE_SECRET)
    config = door(
        "[cameras.yard]",
        f'command = ["camera-program", "--password", "{ARGUMENT}"]',
        "[remote]",
        f'url = "https://user:{URL_TOKEN}@127.0.0.1:1"',
        f'api_key_file = "{tmp_path / "api"}"',
        f'secret = "{tmp_path / "secret"}"',
        camera=f'cameras.front.source = "rtsp://admin:{CAMERA_PASSWORD}@127.0.0.1:1/live?key={URL_TOKEN}"',
    )
    return config


def people(config: Path) -> Gallery:
    settings = load(config)
    return gallery_store(settings).load(load_manifest(settings.recognition.embedder).model_id)


def test_what_is_sent_helps_and_holds_nothing_that_nobody_else_may_know(planted: Path, tmp_path: Path):
    enrolled, out, log = people(planted), tmp_path / "sent.tar.gz", tmp_path / "edge.log"
    secrets = [PASSWORD, CAMERA_PASSWORD, URL_TOKEN, ARGUMENT, API_KEY, SITE_SECRET.hex()]
    secrets.append((planted.parent / "state/device.key").read_text().strip())
    names = [text for each in enrolled.subjects for text in (each.subject_id, each.label)]
    assert len(names) == 84
    said = [f"a line with {each} in it" for each in (*secrets, *names)]
    log.write_text("\n".join(["the first line", *said, "the last line"]))
    done = invoke("support", "--yes", "--out", out, "--log", log, config=planted)
    assert done.exit_code == 0, done.output
    with tarfile.open(out) as tar:
        texts = {Path(each.name).name: tar.extractfile(each).read().decode() for each in tar.getmembers()}
    assert sorted(texts) == ["doctor.json", "log.txt", "settings.json", "versions.json"]
    for name, text in texts.items():
        assert [each for each in secrets if each in text] == [], name
    sent = texts["log.txt"].splitlines()
    assert [sent[0], sent[-1], len(sent)] == ["the first line", "the last line", len(said) + 2]
    assert set(said).isdisjoint(sent)
    assert out.stat().st_mode & 0o777 == 0o600
    settings = json.loads(texts["settings.json"])
    assert settings["cameras.front.source"] == {"value": "rtsp://127.0.0.1:1/live", "from": "file"}
    assert settings["cameras.yard.command"]["value"] == "camera-program and 2 arguments"
    assert settings["mqtt.password_file"]["value"] == str(planted.parent / "password")
    assert settings["mqtt.keepalive_s"] == {"value": "15", "from": "default"}
    assert json.loads(texts["doctor.json"])["light"] == "red"
    assert "numpy" in json.loads(texts["versions.json"])["packages"]
    assert "yunet" in json.loads(texts["versions.json"])["models"]


def test_it_is_not_written_without_being_shown(planted: Path, tmp_path: Path):
    out = tmp_path / "sent.tar.gz"
    refused = invoke("support", "--out", out, config=planted)
    assert "--yes: nobody can be asked here" in str(refused.exception)
    shown = invoke("support", "--show", "--out", out, config=planted)
    assert "--- settings.json" in shown.stdout
    assert not out.exists()


def test_settings_that_cannot_be_read_are_sent_as_what_is_wrong_with_them(door: Door, tmp_path: Path):
    out, config = tmp_path / "sent.tar.gz", door("capture.stal_s = 1")
    assert invoke("support", "--yes", "--out", out, config=config).exit_code == 0
    with tarfile.open(out) as tar:
        text = tar.extractfile("edge-support/doctor.json").read().decode()
    assert "did you mean stall_s?" in text
    assert PASSWORD not in text
