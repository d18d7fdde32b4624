"""Home Assistant: told again when it starts; in a real one, where there is one, the entities live.

For the latter HOME_ASSISTANT is the Python of an environment that has one (tests/README.md).
"""

import json
import os
import shutil
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
from tests.support.places import ROOT as FILES
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e

HOME_ASSISTANT = os.environ.get("HOME_ASSISTANT")
SHIPPED = FILES / "deploy" / "home-assistant"
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


class HomeAssistant:
    """A running one: what it tells, the newest of each entity, and what it is asked for."""

    def __init__(self, process: "subprocess.Popen[bytes]", told: Path, errors: Path) -> None:
        self.process, self.told, self.errors = process, told, errors

    def newest(self) -> dict[str, dict[str, Any]]:
        assert self.process.poll() is None, self.errors.read_text()[-3000:]
        lines = [json.loads(line) for line in self.told.read_text().splitlines() if line.endswith("}")]
        return {line["entity"]: line for line in lines}

    def state(self, entity: str) -> str | None:
        state: str | None = self.newest().get(entity, {}).get("state")
        return state

    def attributes(self, entity: str) -> dict[str, Any]:
        attributes: dict[str, Any] = self.newest().get(entity, {}).get("attributes", {})
        return attributes

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()


@contextmanager
def home_assistant(directory: Path, port: int) -> Iterator[HomeAssistant]:
    """A real Home Assistant at the broker, with the automations and the blueprint that we ship."""
    storage, blueprints = directory / ".storage", directory / "blueprints" / "automation" / "edge"
    storage.mkdir(parents=True)
    blueprints.mkdir(parents=True)
    shutil.copy(SHIPPED / "door.yaml", blueprints)
    (directory / "configuration.yaml").write_text(
        "homeassistant:\n  name: test\nrecorder:\npersistent_notification:\n"
        "automation: !include automations.yaml\ninput_boolean:\n  bolt:\n  visitor:\n"
    )
    shipped = (SHIPPED / "automations.yaml").read_text().replace("edge/v1/home/door", ROOT)
    shipped = shipped.replace("lock.unlock", "input_boolean.turn_on").replace(
        "lock.front_door", "input_boolean.bolt"
    )
    (directory / "automations.yaml").write_text(shipped)
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
    out, errors = directory / "told", directory / "errors"
    assert HOME_ASSISTANT is not None
    with (
        out.open("wb") as states,
        errors.open("wb") as told,
        subprocess.Popen(
            [HOME_ASSISTANT, str(CHILD), str(directory)],
            stdin=subprocess.PIPE,
            stdout=states,
            stderr=told,
        ) as process,
    ):
        home = HomeAssistant(process, out, errors)
        try:
            wait_until(lambda: home.state("started") == "on", "Home Assistant has started", limit_s=240)
            yield home
        finally:
            process.kill()


USE_OF_BLUEPRINT = """
- id: tried
  alias: Tried
  use_blueprint:
    path: edge/door.yaml
    input:
      camera: {camera}
      {branch}:
        - action: input_boolean.turn_on
          target:
            entity_id: input_boolean.visitor
"""


@pytest.mark.timeout(600)
@pytest.mark.skipif(HOME_ASSISTANT is None, reason="needs a Python with homeassistant, in HOME_ASSISTANT")
def test_the_entities_live_in_a_real_home_assistant(
    mosquitto: Mosquitto, make_device: Callable[..., Device], media: Path, tmp_path: Path
):
    settings = (
        "decision.cooldown_s = 1.0",
        "commands.unsigned_reads = true",
        'homeassistant.device_name = "Front door"',
        'homeassistant.camera_names.front = "Street"',
    )
    device = make(make_device, mosquitto.port, media, "face_noface.mov", *settings)
    decision, somebody = (
        "event.front_door_street_decision",
        "binary_sensor.front_door_street_somebody_present",
    )
    with home_assistant(tmp_path / "home", mosquitto.port) as home:
        device.start()
        wait_until(lambda: home.attributes(decision).get("event_type") in ("match", "reject", "no_decision"))
        assert home.attributes(decision).keys() & {"subject", "score", "reason"}
        assert not home.attributes(decision).keys() & {"bbox", "model", "quality", "latency_ms", "shots"}
        wait_until(lambda: home.state(somebody) == "on")
        wait_until(lambda: home.state("binary_sensor.front_door_street_problem") == "off")
        wait_until(lambda: home.state("binary_sensor.front_door_problem") == "off")
        wait_until(lambda: home.state("sensor.front_door_subjects") == "42")
        wait_until(lambda: float(home.state("sensor.front_door_memory") or 0) > 50)
        wait_until(lambda: (home.state("sensor.front_door_street_last_decision") or "").startswith("20"))
        node = home.newest()["device edge__test__door"]
        camera = home.newest()["device edge__test__door__front"]
        assert (node["attributes"]["name"], camera["attributes"]["name"]) == (
            "Front door",
            "Front door Street",
        )
        assert camera["attributes"]["via"] == node["state"]

        home.ask("statistics")
        wait_until(lambda: home.state("statistics") == "told")
        kept = home.attributes("statistics")
        assert kept["sensor.front_door_memory"]["unit_class"] == "information"
        assert kept.keys() >= {"sensor.front_door_undelivered_decisions", "sensor.front_door_subjects"}

        for verb, answer in (("self_test", "done"), ("diagnostics", "done")):
            button, told = f"button.front_door_{verb}", f"sensor.front_door_{verb}_answer"
            home.ask(f'button press {{"entity_id": "{button}"}}')
            wait_until(lambda told=told, answer=answer: home.state(told) == answer)
        assert "rss_mb" in home.attributes("sensor.front_door_diagnostics_answer")["health"]

        wait_until(lambda: home.state("input_boolean.bolt") == "on", "the automation opens")
        with (tmp_path / "home" / "automations.yaml").open("a") as automations:
            automations.write(USE_OF_BLUEPRINT.format(camera=camera["state"], branch="recognised"))
        home.ask("automation reload {}")
        wait_until(
            lambda: home.state("input_boolean.visitor") == "on", "the blueprint's device trigger fires"
        )
        assert device.stop() == 0
        wait_until(lambda: home.state(somebody) == "unavailable")
        assert home.state("sensor.front_door_subjects") == "unavailable"
    errors = (tmp_path / "home" / "errors").read_text()
    assert " ERROR " not in errors
