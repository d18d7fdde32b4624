"""Commands to the real daemon: enrolled, revoked, asked, refused, and each done once."""

import base64
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.device.commands.parse import PAYLOAD_TYPE
from edge.fleet.rollout.config import make_signing_key
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import EventPayload, ResponsePayload
from tests.e2e.device import ROOT, Device
from tests.support.broker import Mosquitto, Subscriber, retained, subscriber
from tests.support.command_line import edge, write_config
from tests.support.pushes import KEY, TRUSTED
from tests.support.waits import LIMIT_S, wait_until

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]
TRUSTING = (f'commands.trusted_keys = ["{TRUSTED}"]', "commands.unsigned_reads = true")


class Sender:
    """An operator's connection, MQTT 5."""

    def __init__(self, port: int) -> None:
        connected = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.on_connect = lambda *_: connected.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert connected.wait(LIMIT_S)

    def send(self, verb: str, payload: bytes, *, retain: bool = False, **properties: Any) -> None:
        found = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(found, name, value)
        self.client.publish(f"{ROOT}/command/{verb}", payload, 1, retain, found).wait_for_publish(LIMIT_S)


def started(device: Device, heard: Subscriber) -> None:
    """Start the daemon, and wait until it listens: a command is for now, and one too early is lost."""
    before = len(heard.on(f"{ROOT}/status"))
    device.start()
    heard.wait(lambda: heard.on(f"{ROOT}/status")[before:][-1:] == [b"online"])


@contextmanager
def sending(port: int) -> Iterator[Sender]:
    sender = Sender(port)
    try:
        yield sender
    finally:
        sender.client.disconnect()
        sender.client.loop_stop()


def signed(verb: str, transaction: str, args: dict[str, Any] | None = None) -> bytes:
    document = {
        "transaction": transaction,
        "args": args or {},
        "expires_at": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
        "site": "test",
        "device": "door",
        "verb": verb,
    }
    return sign(json.dumps(document).encode(), PAYLOAD_TYPE, [KEY])


def plain(transaction: str, args: dict[str, Any] | None = None) -> bytes:
    return json.dumps({"transaction": transaction, "args": args or {}}).encode()


def answer(heard: Subscriber, verb: str, transaction: str) -> ResponsePayload:
    def found() -> list[ResponsePayload]:
        told = [ResponsePayload.model_validate_json(data) for data in heard.on(f"{ROOT}/response/{verb}")]
        return [each for each in told if each.transaction == transaction]

    heard.wait(found)
    return found()[-1]


def decided(heard: Subscriber, since: datetime) -> list[tuple[str, str | None]]:
    events = map(EventPayload.model_validate_json, heard.on("/camera/front/journal"))
    return [
        (each.event_type, each.subject.id if each.subject else each.reason)
        for each in events
        if each.event_type != "left" and each.captured_at > since
    ]


def test_a_subject_is_enrolled_and_revoked_over_mqtt(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, still: Path
):
    clip = f'source = "{media / "face_noface.mov"}"\nloop = true'
    settings = (*TRUSTING, "decision.cooldown_s = 1.0")
    device = make_device(mosquitto.port, enrolled=False, settings=settings, cameras={"front": clip})
    photo = base64.b64encode(still.read_bytes()).decode()
    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        started(device, heard)
        begun = datetime.now(UTC)
        heard.wait(lambda: ("reject", "gallery_empty") in decided(heard, begun))
        args = {"subject": "p-new", "photo": photo, "label": "--force", "groups": ["staff"]}
        sender.send("enroll", signed("enroll", "t-1", args))
        enrolled = answer(heard, "enroll", "t-1")
        assert (enrolled.status, enrolled.error) == ("ok", None)
        since = datetime.now(UTC)
        heard.wait(lambda: ("match", "p-new") in decided(heard, since))
        sender.send("subjects", plain("t-2"))
        known = answer(heard, "subjects", "t-2").data
        assert known["subjects"] == [
            {"id": "p-new", "label": "--force", "groups": ["staff"], "state": "active"}
        ], "a label is a label, whatever it looks like"
        sender.send("identify", plain("t-3", {"photo": photo}))
        assert answer(heard, "identify", "t-3").data["subject"] == "p-new"

        sender.send("enroll", signed("enroll", "t-1", args))
        heard.wait(lambda: len(heard.on(f"{ROOT}/response/enroll")) == 2)
        assert answer(heard, "enroll", "t-1") == enrolled, "the same answer, and nothing done twice"

        sender.send("suspend", signed("suspend", "t-4", {"subject": "p-new"}))
        assert answer(heard, "suspend", "t-4").status == "ok"
        since = datetime.now(UTC)
        heard.wait(lambda: ("reject", "p-new") in decided(heard, since))
        sender.send("revoke", signed("revoke", "t-5", {"subject": "p-new"}))
        assert answer(heard, "revoke", "t-5").status == "ok"
        since = datetime.now(UTC) + timedelta(seconds=1)
        heard.wait(lambda: decided(heard, since))
        assert set(decided(heard, since)) == {("reject", "gallery_empty")}
        assert device.stop() == 0
    audit = [
        json.loads(line) for line in (device.state / "commands" / "audit.jsonl").read_text().splitlines()
    ]
    assert [(each["verb"], each["outcome"]) for each in audit] == [
        ("enroll", "ok"),
        ("suspend", "ok"),
        ("revoke", "ok"),
    ]
    assert "p-new" not in device.log_path.read_text() + json.dumps(audit)
    assert not list((device.state / "commands").glob("*.part")), "the photo is gone"


def test_a_stranger_is_enrolled_from_a_past_visit_over_mqtt(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "face_noface.mov"}"\nloop = true'
    settings = (*TRUSTING, "strangers.keep_hours = 24", "decision.cooldown_s = 1.0")
    device = make_device(mosquitto.port, enrolled=False, settings=settings, cameras={"front": clip})

    def visits() -> list[str]:
        return [each["best_visit"] for each in json.loads(device.edge("strangers", "list", "--json").stdout)]

    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        started(device, heard)
        wait_until(device.visits, "the stranger is kept")
        sender.send("enroll", signed("enroll", "t-0", {"subject": "p-new", "visit": "v-0123456789ab"}))
        assert "v-0123456789ab" in (answer(heard, "enroll", "t-0").error or "")
        args = {"subject": "p-new", "visit": visits()[0], "label": "Alice"}
        sender.send("enroll", signed("enroll", "t-1", args))
        enrolled = answer(heard, "enroll", "t-1")
        assert (enrolled.status, enrolled.error) == ("ok", None)
        since = datetime.now(UTC)
        heard.wait(lambda: ("match", "p-new") in decided(heard, since))
        sender.send("subjects", plain("t-2"))
        assert answer(heard, "subjects", "t-2").data["subjects"][0]["label"] == "Alice"
        assert device.stop() == 0


def test_a_picture_of_each_decision_is_published_where_the_camera_says_so_and_when_asked(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "single_face.mp4"}"\nloop = true\nsnapshot = "decision"'
    settings = ("commands.unsigned_reads = true", "homeassistant.discovery = true")
    device = make_device(mosquitto.port, settings=settings, cameras={"front": clip})
    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        device.start()
        heard.wait(lambda: heard.on("/camera/front/snapshot"))
        picture = cv2.imdecode(np.frombuffer(heard.on("/snapshot")[0], np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (360, 640, 3)
        [document] = [json.loads(data) for data in heard.on("__front/config")]
        [image] = [part for part in document["cmps"].values() if part["p"] == "image"]
        assert heard.on(image["image_topic"])
        before = len(heard.on("/camera/front/snapshot"))
        sender.send("snapshot", plain("t-1", {"camera": "front"}))
        assert answer(heard, "snapshot", "t-1").data == {"camera": "front", "published": True}
        heard.wait(lambda: len(heard.on("/camera/front/snapshot")) > before)
        assert device.stop() == 0
    assert not [topic for topic in retained(mosquitto.port) if topic.endswith("/snapshot")]


def test_what_runs_can_be_asked_and_restarted(mosquitto: Mosquitto, make_device: MakeDevice, media: Path):
    clip = f'source = "{media / "no_face.mp4"}"\nloop = true'
    device = make_device(
        mosquitto.port, settings=(*TRUSTING, "commands.snapshots = true"), cameras={"front": clip}
    )
    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        started(device, heard)
        heard.wait(lambda: heard.on("/camera/front/status")[-1:] == [b"online"])
        sender.send("diagnostics", plain("t-1"))
        assert answer(heard, "diagnostics", "t-1").data["info"]["gallery_size"] == 42
        sender.send("selftest", plain("t-2"))
        tested = answer(heard, "selftest", "t-2")
        assert "golden vector right" in tested.data.get("message", ""), tested.error
        sender.send("snapshot", plain("t-3", {"camera": "front"}))
        picture = base64.b64decode(answer(heard, "snapshot", "t-3").data["jpeg"])
        assert picture.startswith(b"\xff\xd8\xff")
        sender.send("snapshot", plain("t-4", {"camera": "back"}))
        assert "front" in (answer(heard, "snapshot", "t-4").error or "")
        sender.send("gallery.sync", signed("gallery.sync", "t-5"))
        assert "gallery of its own" in (answer(heard, "gallery.sync", "t-5").error or "")
        device.settings = (*TRUSTING, "decision.threshold = 0.61")
        device.write()
        sender.send("reload", signed("reload", "t-6"))
        assert answer(heard, "reload", "t-6").status == "ok"
        wait_until(lambda: device.said("reloaded"))
        sender.send("snapshot", plain("t-7", {"camera": "front"}))
        assert "do not leave" in (answer(heard, "snapshot", "t-7").error or "")
        sender.send("purge", signed("purge", "t-8", {"confirm": "another"}))
        assert "nothing was erased" in (answer(heard, "purge", "t-8").error or "")
        sender.send("purge", signed("purge", "t-9", {"confirm": "door"}))
        assert answer(heard, "purge", "t-9").data["message"] == "erased 42 subject(s)"
        wait_until(lambda: device.said("gallery swapped"))
        sender.send("restart", signed("restart", "t-10"))
        assert answer(heard, "restart", "t-10").status == "ok"
        assert device.process.wait(LIMIT_S) == 0
        started(device, heard)
        sender.send("restart", signed("restart", "t-10"))
        heard.wait(lambda: len(heard.on(f"{ROOT}/response/restart")) == 2)
        assert device.process.poll() is None, "it was done, and is not done again"
        assert device.stop() == 0


def test_what_is_not_believed_is_not_done_and_the_daemon_goes_on(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    device = make_device(mosquitto.port, settings=TRUSTING[:1])
    stolen = f"{ROOT}-2/response/x"
    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        sender.send("revoke", signed("revoke", "t-0", {"subject": "p-man"}), retain=True)
        started(device, heard)
        own = f"{ROOT}/response/mine"
        sender.send("revoke", b"", retain=True)
        revoke = signed("revoke", "t-live", {"subject": "p-man"})
        sender.send("revoke", revoke, retain=True, ResponseTopic=own, CorrelationData=b"\x02")
        heard.wait(lambda: heard.on(own))
        assert "retained" in (ResponsePayload.model_validate_json(heard.on(own)[-1]).error or "")
        before = len(heard.on(own))
        sender.send("revoke", plain("t-1", {"subject": "p-man"}))
        assert "not signed" in (answer(heard, "revoke", "t-1").error or "")
        sender.send("subjects", plain("t-2"))
        assert "unsigned_reads" in (answer(heard, "subjects", "t-2").error or "")
        sender.send("revoke", signed("revoke", "t-3", {"subject": "p-man"}), ResponseTopic=stolen)
        assert "response topic" in (answer(heard, "revoke", "t-3").error or "")
        sender.send("revoke", signed("enroll", "t-4", {"subject": "p-man"}))
        assert "another verb" in (answer(heard, "revoke", "t-4").error or "")
        for data in (b"\xff", b"[" * 8000, b"x" * 600_000, b"", b'{"transaction": NaN}'):
            sender.send("revoke", data)
        for number in range(1000):
            sender.client.publish(f"{ROOT}/command/subjects", plain(f"f-{number}"), 1)
        wait_until(lambda: device.said("command refused"))

        def answered() -> bool:  # once the bucket has filled again
            sender.send("subjects", signed("subjects", "t-9"), ResponseTopic=own, CorrelationData=b"\x01")
            time.sleep(1)
            return len(heard.on(own)) > before

        wait_until(answered)
        told = ResponsePayload.model_validate_json(heard.on(own)[before])
        assert (told.transaction, told.data["count"]) == ("t-9", 42)
        sender.send("diagnostics", signed("diagnostics", "t-10"))
        counters = answer(heard, "diagnostics", "t-10").data["health"]["counters"]
        assert counters["commands.dropped"] > 900
        assert heard.on(stolen) == []
        assert not device.said("Traceback")
        assert device.stop() == 0


def test_the_operators_command_line_signs_sends_and_prints(
    mosquitto: Mosquitto, make_device: MakeDevice, tmp_path: Path, still: Path
):
    key, port = tmp_path / "command.pem", f"mqtt.port = {mosquitto.port}"
    office = write_config(tmp_path, port, name="office.toml", site="test", state_dir=tmp_path / "office")
    trusted = make_signing_key(key)
    device = make_device(mosquitto.port, settings=(f'commands.trusted_keys = ["{trusted}"]',)).start()
    command = ("fleet", "command", "door")
    done = edge(*command, "subjects", "--key", str(key), config=office)
    assert json.loads(done.stdout)["count"] == 42, done.stderr
    done = edge(
        *command, "enroll", "--arg", "subject=p-2", "--photo", str(still), "--key", str(key), config=office
    )
    assert done.returncode == 1
    assert "p-man" in done.stderr, "he is enrolled already, under another id"
    other = ("enroll", "--arg", "subject=p-orl-02", "--photo", str(still), "--key", str(key))
    done = edge(*command, *other, config=office)
    assert (done.returncode, "'p-orl-02' is enrolled with another face" in done.stderr) == (1, True)
    done = edge(*command, *other, "--arg", "replace=true", config=office)
    assert (done.returncode, "'p-man' has nearly the same face" in done.stderr) == (1, True), done.stderr
    done = edge(*command, "revoke", "--arg", "subject=p-man", "--wait", "2", config=office)
    assert done.returncode == 1
    assert "not signed" in done.stderr
    assert device.stop() == 0


def chunk(kind: bytes, data: bytes, length: int | None = None) -> bytes:
    """Return a chunk of a PNG, which may promise another length than it has."""
    size = len(data) if length is None else length
    return size.to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(side_px: int, *rest: bytes) -> bytes:
    """Return the beginning of a grey PNG, and the rest."""
    header = side_px.to_bytes(4, "big") * 2 + bytes((8, 0, 0, 0, 0))
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *rest))


HOSTILE_PHOTOS = (
    (png(64, chunk(b"IDAT", b"", 0xFFFFFFF0), chunk(b"IEND", b"")), "damaged"),
    (
        png(8000, chunk(b"IDAT", zlib.compress(bytes(8001 * 8000), 9)), chunk(b"IEND", b"")),
        "pixels are too many",
    ),
)
"""57 bytes that promise 4 GB, and an honest 62 KB that are 8000x8000 pixels; what is said of them."""

MAX_RSS_MB = 260
"""Of the daemon and of its child: 160 MB with models and without a photo, and 100 for a fair one."""


def peak_rss_mb(pid: int) -> float:
    """Return the most memory that a process has had; 0 where there is none."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 1e3 if found else 0.0


@pytest.mark.parametrize("verb", ["identify", "enroll"])
def test_a_photo_that_asks_for_gigabytes_is_refused_in_little_memory(
    mosquitto: Mosquitto, make_device: MakeDevice, verb: str
):
    device = make_device(mosquitto.port, settings=TRUSTING)
    with subscriber(mosquitto.port) as heard, sending(mosquitto.port) as sender:
        started(device, heard)
        daemon = device.process.pid
        children = Path(f"/proc/{daemon}/task/{daemon}/children")
        peaks = {"daemon": 0.0, "child": 0.0}

        def answers() -> list[ResponsePayload]:
            for _ in range(10):  # often: a child that is done is gone with its figures
                pids = [int(each) for each in children.read_text().split()]
                peaks["child"] = max([peaks["child"], *map(peak_rss_mb, pids)])
                time.sleep(0.004)
            return [ResponsePayload.model_validate_json(data) for data in heard.on(f"/response/{verb}")]

        for number, (photo, says) in enumerate(HOSTILE_PHOTOS):
            args = {"photo": base64.b64encode(photo).decode()}
            args |= {"subject": "p-new"} if verb == "enroll" else {}
            sender.send(verb, signed(verb, f"t-{number}", args))
            wait_until(lambda wanted=number + 1: len(answers()) >= wanted)
            told = answers()[-1]
            assert (told.status, told.transaction) == ("error", f"t-{number}")
            assert told.error.startswith("photo: ")
            assert says in told.error
        peaks["daemon"] = peak_rss_mb(daemon)
        assert 50 < min(peaks.values()) <= max(peaks.values()) < MAX_RSS_MB, peaks
        assert device.stop() == 0
