"""Somebody whom nobody knows comes, is kept for a while, and becomes a subject, or is said not to be one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.mqtt.payloads import EventPayload
from tests.broker import Mosquitto, Subscriber, subscriber, wait_until
from tests.e2e.device import Device

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]
KEEPING = ("strangers.keep_hours = 24", "decision.cooldown_s = 1.0")


def decided(heard: Subscriber, since: datetime) -> list[tuple[str, str | None]]:
    events = map(EventPayload.model_validate_json, heard.on("/camera/front/journal"))
    return [
        (each.event_type, each.subject.id if each.subject else each.reason)
        for each in events
        if each.event_type != "left" and each.captured_at > since
    ]


def strangers(device: Device) -> list[dict]:
    return json.loads(device.edge("strangers", "list", "--json").stdout)


def test_a_past_visit_becomes_a_subject_without_a_photo(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "face_noface.mov"}"\nloop = true'
    device = make_device(mosquitto.port, enrolled=False, settings=KEEPING, cameras={"front": clip})
    with subscriber(mosquitto.port) as heard:
        device.start()
        wait_until(lambda: [each["seen"] for each in strangers(device)] == [2], 60, "the man twice")
        [man] = strangers(device)
        assert man["cameras"] == ["front"]
        assert "once" not in device.edge("strangers", "list").stdout
        told = device.edge("enroll", "p-new", "--visit", man["best_visit"], "--all-visits")
        assert told.returncode == 0, told.stderr
        since = datetime.now(UTC)
        wait_until(lambda: device.said("gallery swapped"))
        heard.wait(lambda: ("match", "p-new") in decided(heard, since), 30)
        assert not {man["best_visit"]} & {v for each in strangers(device) for v in each["visits"]}
        assert device.edge("enroll", "p-2", "--visit", man["best_visit"]).returncode == 1
        assert device.stop() == 0
        assert "p-new" not in device.log_path.read_text()
    device.settings = KEEPING[1:]
    device.start()
    wait_until(lambda: not list((device.state / "strangers").iterdir()), 10, "nothing is kept any more")
    assert device.stop() == 0


def test_who_was_taken_for_somebody_is_not_again(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, tmp_path: Path, still: Path
):
    """First the threshold is so high that the visitor is a stranger, then so low that he passes."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("carphone_pristine.mp4", "no_face.mp4"):
        (folder / name).symlink_to(media / name)
    device = make_device(
        mosquitto.port,
        enrolled=False,
        settings=(*KEEPING, "decision.threshold = 0.9"),
        cameras={"front": f'source = "{folder}"\nloop = true'},
    )
    assert device.edge("enroll", "p-man", str(still)).returncode == 0
    with subscriber(mosquitto.port) as heard:
        device.start()
        wait_until(lambda: strangers(device), 60, "the stranger")
        assert device.stop() == 0
        [stranger, *_] = strangers(device)
        device.settings = (*KEEPING, "decision.threshold = -0.5", "decision.margin = 0.0")
        since = datetime.now(UTC)
        device.start()
        heard.wait(lambda: ("match", "p-man") in decided(heard, since), 30)
        told = device.edge("gallery", "deny", "p-man", "--visit", stranger["best_visit"])
        assert told.returncode == 0, told.stderr
        denied_at = datetime.now(UTC)
        heard.wait(lambda: ("reject", "ambiguous") in decided(heard, denied_at), 60)
        assert device.edge("gallery", "deny").stdout == "p-man: 1 face(s)\n"
        assert device.edge("subjects", "remove", "p-man").returncode == 0
        assert device.edge("gallery", "deny").stdout == "", "who is removed takes its denials along"
        assert device.stop() == 0
