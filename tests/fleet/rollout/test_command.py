"""Commands to a device: what the arguments of a verb may be, and which answer is the device's."""

import base64
import json
import queue
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pytest

from edge.camera.photo import decode_photo
from edge.core.clock import SystemClock
from edge.core.errors import ConfigError, MediaError
from edge.fleet.rollout import command
from edge.fleet.rollout.command import check_args, read_args, send_command
from edge.mqtt.broker import Broker
from edge.mqtt.contract.messages import VERBS, ResponsePayload


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
