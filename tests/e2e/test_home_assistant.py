"""Home Assistant: told again when it starts; in a real one, where there is one, the entities live.

For the latter HOME_ASSISTANT is the Python of an environment made so, with Python 3.12:
pip install homeassistant==2025.1.4 paho-mqtt==1.6.1
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.publish as mqtt
import pytest

from tests.e2e.device import ROOT, Device
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e

HOME_ASSISTANT = os.environ.get("HOME_ASSISTANT")
CHILD = Path(__file__).with_name("home_assistant_child.py")
JITTER_S = 5.0
"""As in the daemon: over so long the doors of a building answer."""


def birth(port: int, text: str = "online", *, retain: bool = False) -> None:
    mqtt.single("homeassistant/status", text, 1, retain, hostname="127.0.0.1", port=port)


def described(heard: Subscriber) -> int:
    return len([each for each in list(heard.seen) if each.topic.startswith("homeassistant/device/")])


def make(make_device: Callable[..., Device], port: int, media: Path, clip: str, *settings: str) -> Device:
    camera = f'source = "{media / clip}"\nloop = true'
    settings = ("homeassistant.discovery = true", *settings)
    return make_device(port, settings=settings, cameras={"front": camera})


def test_home_assistant_that_has_started_is_told_everything_again_once(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path
):
    device = make(make_device, mosquitto.port, media, "no_face.mp4")
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: described(heard) == 2)
        heard.wait(lambda: heard.on(f"{ROOT}/camera/front/status")[-1:] == [b"online"])
        for text in ("offline", "online", "online", "online"):
            birth(mosquitto.port, text)
        asked_s = time.monotonic()
        heard.wait(lambda: described(heard) == 4)
        heard.wait(lambda: len(heard.on(f"{ROOT}/info")) >= 2 and len(heard.on(f"{ROOT}/status")) >= 2)
        time.sleep(max(0.0, asked_s + JITTER_S + 1 - time.monotonic()))
        assert described(heard) == 4, "however often it was said"
        assert device.stop() == 0


@contextmanager
def home_assistant(directory: Path, port: int) -> Iterator[Callable[[], dict[str, dict[str, Any]]]]:
    """A real Home Assistant at the broker; yields what returns the newest state of every entity."""
    storage = directory / ".storage"
    storage.mkdir(parents=True)
    (directory / "configuration.yaml").write_text("homeassistant:\n  name: test\n")
    entry = {
        "entry_id": "edge",
        "domain": "mqtt",
        "title": "broker",
        "data": {"broker": "127.0.0.1", "port": port, "discovery": True},
        "options": {},
        "version": 1,
        "minor_version": 2,
        "source": "user",
        "unique_id": None,
        "disabled_by": None,
        "pref_disable_new_entities": False,
        "pref_disable_polling": False,
        "discovery_keys": {},
        "created_at": "2025-01-01T00:00:00+00:00",
        "modified_at": "2025-01-01T00:00:00+00:00",
    }
    stored = {"version": 1, "minor_version": 4, "key": "core.config_entries", "data": {"entries": [entry]}}
    (storage / "core.config_entries").write_text(json.dumps(stored))
    out, errors = directory / "states", directory / "errors"
    assert HOME_ASSISTANT is not None
    with (
        out.open("wb") as states,
        errors.open("wb") as told,
        subprocess.Popen([HOME_ASSISTANT, str(CHILD), str(directory)], stdout=states, stderr=told) as process,
    ):

        def newest() -> dict[str, dict[str, Any]]:
            assert process.poll() is None, errors.read_text()[-3000:]
            lines = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]
            return {line["entity"]: line for line in lines}

        try:
            wait_until(lambda: "started" in newest(), "Home Assistant has started", limit_s=240)
            yield newest
        finally:
            process.kill()


@pytest.mark.timeout(600)
@pytest.mark.skipif(HOME_ASSISTANT is None, reason="needs a Python with homeassistant, in HOME_ASSISTANT")
def test_the_entities_live_in_a_real_home_assistant(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path, tmp_path: Path
):
    device = make(make_device, mosquitto.port, media, "face_noface.mov", "decision.cooldown_s = 1.0")
    with home_assistant(tmp_path / "home", mosquitto.port) as newest:
        device.start()

        def state(entity: str) -> str | None:
            return newest().get(entity, {}).get("state")

        def decided() -> str | None:
            return newest().get("event.door_door_front_decision", {}).get("attributes", {}).get("event_type")

        wait_until(lambda: decided() in ("match", "reject", "no_decision"))
        wait_until(lambda: state("binary_sensor.door_door_front_somebody_present") == "on")
        wait_until(lambda: state("binary_sensor.door_door_front_problem") == "off")
        wait_until(lambda: state("binary_sensor.door_door_problem") == "off")
        wait_until(lambda: state("sensor.door_door_subjects") == "42")
        wait_until(lambda: float(state("sensor.door_door_memory") or 0) > 50)
        assert device.stop() == 0
        wait_until(lambda: state("binary_sensor.door_door_front_somebody_present") == "unavailable")
        assert state("sensor.door_door_subjects") == "unavailable"
    assert " ERROR " not in (tmp_path / "home" / "errors").read_text()
