"""Pushes to the real daemon: in force at once, kept, rolled back, and never forged."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt
import pytest

from edge.device.settings.load import load
from edge.mqtt.contract.messages import ConfigReportedPayload, InfoPayload
from edge.mqtt.contract.topics import Topics
from tests.e2e.device import ROOT, Device
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.ports import free_port
from tests.support.pushes import TRUSTED, content, push
from tests.support.streams import MjpegServer
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]
PUSH_SETTINGS = (f'push.trusted_keys = ["{TRUSTED}"]', "push.probation_s = 4", 'push.groups = ["entrances"]')


def publish(mosquitto: Mosquitto, data: bytes, layer: str = "device") -> None:
    topic = Topics("test", "door").config_desired(layer)
    mqtt.single(topic, data, qos=1, retain=True, hostname="127.0.0.1", port=mosquitto.port)


def reports(heard: Subscriber) -> list[ConfigReportedPayload]:
    return [ConfigReportedPayload.model_validate_json(data) for data in heard.on(f"{ROOT}/config/reported")]


def came_to(heard: Subscriber, status: str, version: int | None) -> ConfigReportedPayload:
    def told() -> tuple[str, int | None] | None:
        last = reports(heard)[-1:]
        return (last[0].status, last[0].version) if last else None

    heard.wait(lambda: told() == (status, version))
    return reports(heard)[-1]


def thresholds(heard: Subscriber) -> list[Any]:
    return [InfoPayload.model_validate_json(data).threshold for data in heard.on(f"{ROOT}/info")]


def test_a_threshold_is_in_force_at_once_and_kept_over_a_restart(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "no_face.mp4"}"\nloop = true'
    device = make_device(mosquitto.port, settings=PUSH_SETTINGS, cameras={"front": clip})
    with subscriber(mosquitto.port) as heard:
        device.start()
        came_to(heard, "none", None)
        publish(mosquitto, push(1, {"decision": {"threshold": 0.6}}))
        pending = came_to(heard, "pending", 1)
        assert pending.keys == {"decision.threshold": "applied"}
        assert thresholds(heard)[-1] == 0.6, "in force while it is tried"
        applied = came_to(heard, "applied", 1)
        assert applied.versions == {"device": 1}
        assert applied.effective == pending.effective != reports(heard)[0].effective
        offline = [line for line in device.said("camera offline") if line["camera"] == "front"]
        assert offline == [], "no camera was touched"

        publish(mosquitto, push(7, {"decision": {"margin": 0.2}}, scope="fleet", name=None), "fleet")
        came_to(heard, "applied", 7)
        assert reports(heard)[-1].versions == {"device": 1, "fleet": 7}
        assert device.stop() == 0
        device.start()
        heard.wait(lambda: thresholds(heard)[-1] == 0.6)
        wait_until(
            lambda: len(reports(heard)) >= 2 and reports(heard)[-1].versions == {"device": 1, "fleet": 7}
        )
        assert reports(heard)[-1].effective == applied_with_fleet(heard)
        told = device.edge("check").stdout
        assert re.search(r"decision\.threshold +│ 0\.6 +│ push ", told), told
        assert device.stop() == 0


def applied_with_fleet(heard: Subscriber) -> str:
    return next(each.effective for each in reports(heard) if each.status == "applied" and each.version == 7)


@pytest.mark.parametrize("first_s", [0.0, 1.0], ids=["one frame at once", "none in time"])
def test_what_does_not_work_is_rolled_back(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, first_s: float
):
    """Limits below the pauses of the stream restart the camera for ever: it gives one frame, or none."""
    port = free_port()
    device = make_device(
        mosquitto.port,
        settings=(*PUSH_SETTINGS, "recognition.motion_gate = false"),
        cameras={"front": f'source = "http://127.0.0.1:{port}/"'},
    )
    with MjpegServer(port, fps=1.0, first_s=first_s), subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: heard.on("/camera/front/status")[-1:] == [b"online"])
        publish(mosquitto, push(1, {"capture": {"stall_s": 0.5, "open_timeout_s": 0.5}}))
        came_to(heard, "pending", 1)
        back = came_to(heard, "rolled_back", 1)
        assert "front" in (back.error or "")
        assert back.versions == {}
        heard.wait(lambda: b'"push_rolled_back"' in heard.on("/health")[-1])
        heard.wait(lambda: heard.on("/camera/front/status")[-1:] == [b"online"])
        assert device.stop() == 0


def test_what_cannot_be_built_is_rejected_and_the_daemon_goes_on(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "no_face.mp4"}"\nloop = true'
    device = make_device(mosquitto.port, settings=PUSH_SETTINGS, cameras={"front": clip})
    attacks = {
        push(1, {"recognition": {"embedder": "no-such-model"}}): ("rejected", 1, None),
        push(2, {"cameras": {"front": {"command": ["sh"]}}}): ("rejected", 2, None),
        content(3, {"decision": {"threshold": 0.0}}): ("rejected", 2, "no_envelope"),
        b"\xff" * 70_000: ("rejected", 2, "too_large"),
        b"": ("rejected", 2, "empty"),
        push(4, {"mqtt": {"host": "evil.example"}}): ("rejected", 4, "empty"),
    }
    with subscriber(mosquitto.port) as heard:
        device.start()
        for data, came in attacks.items():
            publish(mosquitto, data)
            heard.wait(lambda came=came: reports(heard) and summary(reports(heard)[-1]) == came)
        assert device.stop() == 0
        before = len(reports(heard))
        device.start()
        heard.wait(lambda: len(reports(heard)) > before)
        assert summary(reports(heard)[-1]) == ("rejected", 4, None), "after a restart it is not forgotten"
        publish(mosquitto, push(5, {"decision": {"threshold": 0.7}}))
        came_to(heard, "applied", 5)
        assert thresholds(heard)[-1] == 0.7
        health = json.loads(heard.on(f"{ROOT}/health")[-1]) if heard.on(f"{ROOT}/health") else {}
        assert health.get("late", []) == []
        assert device.stop() == 0
    assert load(device.config).mqtt.host == "127.0.0.1"


def summary(report: ConfigReportedPayload) -> tuple[str, int | None, str | None]:
    return report.status, report.version, report.refused.reason if report.refused else None


def test_a_kill_while_it_is_on_trial_rolls_it_back(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "no_face.mp4"}"\nloop = true'
    settings = (PUSH_SETTINGS[0], "push.probation_s = 60")
    device = make_device(mosquitto.port, settings=settings, cameras={"front": clip})
    with subscriber(mosquitto.port) as heard:
        device.start()
        publish(mosquitto, push(1, {"decision": {"threshold": 0.6}}))
        came_to(heard, "pending", 1)
        device.stop(9)
        device.start()
        came_to(heard, "rolled_back", 1)
        assert thresholds(heard)[-1] != 0.6
        assert device.stop() == 0
