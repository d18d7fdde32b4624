"""recognition.embedder = "auto" as an operator meets it: check, enrol, and a daemon that runs meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.face.manifest import load_manifest
from edge.mqtt.contract.messages import InfoPayload
from tests.e2e.device import Device
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.command_line import edge

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]

AUTO = ('recognition.embedder = "auto"',)


def told(seen: Subscriber) -> list[InfoPayload]:
    return [InfoPayload.model_validate_json(payload) for payload in seen.on("door/info")]


def test_a_running_daemon_takes_the_embedder_that_the_first_subject_is_enrolled_with(
    mosquitto: Mosquitto, make_device: MakeDevice, still: Path
) -> None:
    device = make_device(mosquitto.port, enrolled=False, settings=AUTO)
    with subscriber(mosquitto.port) as seen:
        device.start()
        seen.wait(lambda: told(seen))
        first = told(seen)[0]
        assert first.embedder_choice.startswith("auto: the gallery is empty; timed here: sface-int8")
        others = device.directory / "floats.toml"
        others.write_text(device.config.read_text().replace('"auto"', '"sface-fp32"'))
        done = edge("enroll", "p-1", str(still), config=others)
        assert done.returncode == 0, done.stderr
        seen.wait(lambda: told(seen)[-1].gallery_size == 1)
        last = told(seen)[-1]
    assert last.embedder_choice == "auto: the gallery was enrolled with it"
    assert last.models["embedder"].id == load_manifest("sface-fp32").model_id != first.models["embedder"].id
    assert device.stop() == 0


def test_check_and_the_gallery_commands_follow_the_gallery(make_device: MakeDevice, still: Path) -> None:
    device = make_device(1, enrolled=False, settings=('recognition.embedder = "sface-int8-add"',))
    assert device.edge("enroll", "p-1", str(still)).returncode == 0
    device.settings = AUTO
    model_id = load_manifest("sface-int8-add").model_id
    assert f"embedder   {model_id}; auto: the gallery was enrolled with it" in device.edge("check").stdout
    assert "p-1" in device.edge("subjects", "list").stdout
    assert device.edge("subjects", "remove", "p-1").returncode == 0
    assert "auto: the gallery is empty; timed here" in device.edge("check").stdout
