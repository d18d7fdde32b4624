"""Commands to a device: what the arguments of a verb may be, and which answer is the device's."""

import base64
import json
import queue
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.camera.photo import decode_photo
from edge.core.clock import SystemClock
from edge.core.errors import CommandError, ConfigError, LinkError, MediaError
from edge.fleet.rollout import command
from edge.fleet.rollout.command import check_args, read_args, send_command
from edge.mqtt.broker import Broker
from edge.mqtt.contract.messages import VERBS, ResponsePayload
from tests.support.broker import Mosquitto, leave
from tests.support.command_line import run, write_config
from tests.support.waits import LIMIT_S, Stopwatch


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
            self.messages.put(
                type(
                    "Message",
                    (),
                    {"topic": "edge/v1/home/door/response/subjects", "payload": payload, "correlation": None},
                )()
            )


def test_what_others_publish_below_response_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "site_listener", Heard)
    answer = send_command(
        Broker("127.0.0.1", 1883), "home", "door", "subjects", {}, None, wait_s=5, clock=SystemClock()
    )
    assert answer.data == {"n": 1}


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


class AnsweringDevice:
    """A device at a real broker that answers every command with `data`."""

    def __init__(self, port: int, name: str, data: dict[str, Any] | None = None) -> None:
        self.asked: list[str] = []
        self._root, self._data = f"edge/v1/hq/{name}", data or {}
        client = self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        client.on_message = self._answer
        client.connect("127.0.0.1", port)
        client.subscribe(f"{self._root}/command/+", 1)
        client.loop_start()
        client.publish(f"{self._root}/status", b"online", 1, retain=True).wait_for_publish(LIMIT_S)

    def _answer(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        verb = message.topic.rpartition("/")[2]
        self.asked.append(verb)
        answer = ResponsePayload(
            transaction=json.loads(message.payload)["transaction"], verb=verb, status="ok", data=self._data
        )
        self._client.publish(f"{self._root}/response/{verb}", answer.model_dump_json(by_alias=True), 1)

    def close(self) -> None:
        leave(self._client)


@pytest.fixture
def office(mosquitto: Mosquitto, tmp_path: Path) -> Path:
    return write_config(tmp_path, f"mqtt.port = {mosquitto.port}", name="office.toml", site="hq")


@pytest.fixture
def door(mosquitto: Mosquitto) -> Iterator[Callable[..., AnsweringDevice]]:
    made: list[AnsweringDevice] = []

    def make(name: str, data: dict[str, Any] | None = None) -> AnsweringDevice:
        made.append(AnsweringDevice(mosquitto.port, name, data))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_unknown_device_is_told_at_once_and_those_that_are_there_are_named(
    office: Path, door: Callable[..., AnsweringDevice]
):
    watch = Stopwatch()
    with pytest.raises(LinkError, match="no device of site hq was heard"):
        run("fleet", "command", "door-03", "reload", config=office)
    other = door("door-02")
    with pytest.raises(LinkError, match=r"no device 'door-03' was ever at site hq; there are: door-02"):
        run("fleet", "command", "door-03", "reload", config=office)
    assert watch.undisturbed_s < 20, "instead of a minute each"
    assert other.asked == []
    door("door-03", {"message": "done"})
    assert run("fleet", "command", "door-03", "reload", config=office) == "done\n"


def test_a_snapshot_is_written_to_a_file(office: Path, door: Callable[..., AnsweringDevice], tmp_path: Path):
    picture = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    door("door-03", {"camera": "front", "jpeg": base64.b64encode(picture).decode()})
    out = tmp_path / "front.jpg"
    ask = ("fleet", "command", "door-03", "snapshot", "--arg", "camera=front", "--out", out)
    assert str(out) in run(*ask, config=office)
    assert out.read_bytes() == picture
    door("door-03", {"camera": "front"})
    assert "snapshot" in run("fleet", "command", "door-03", "reload", "--out", out, config=office, code=2)


@pytest.mark.parametrize("data", [{}, {"jpeg": 7}, {"jpeg": "no base64"}])
def test_an_answer_without_a_picture_is_an_error(
    office: Path, door: Callable[..., AnsweringDevice], tmp_path: Path, data: dict[str, Any]
):
    door("door-03", data)
    out = tmp_path / "front.jpg"
    with pytest.raises(CommandError, match="without a picture"):
        run("fleet", "command", "door-03", "snapshot", "--arg", "camera=x", "--out", out, config=office)
    assert not out.exists()


def test_the_help_names_the_arguments_of_every_verb():
    told = "".join(run("fleet", "command", "--help").replace("│", "").split())
    for verb, args in VERBS.items():
        for name in args.model_fields:
            assert verb in told
            assert name in told


def test_a_patch_is_compared_with_what_is_in_force_at_a_device(
    office: Path, door: Callable[..., AnsweringDevice], tmp_path: Path
):
    patch = tmp_path / "night.toml"
    patch.write_text("[decision]\nmargin = 0.1\n[log]\nlevel = 'debug'\n")
    asked = door("door-03", {"settings": {"decision.margin": 0.07, "log.level": "error"}})
    told = run("config", "diff", patch, "--name", "door-03", config=office)
    assert asked.asked == ["diagnostics"]
    assert re.search(r"decision.margin +│ 0.07 +│ 0.1 ", told), told
    assert re.search(r"log.level +│ error +│ debug ", told), told
    door("door-02", {"info": {}})
    with pytest.raises(CommandError, match="an earlier release"):
        run("config", "diff", patch, "--name", "door-02", config=office)
