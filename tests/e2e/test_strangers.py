"""Somebody whom nobody knows comes, is kept for a while, and becomes a subject, or is said not to be one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cv2
import pytest

from edge.mqtt.contract.messages import EventPayload
from tests.e2e.device import Device
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.ports import free_port
from tests.support.waits import wait_until

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


def strangers(device: Device, *options: str) -> list[dict]:
    return json.loads(device.edge("strangers", "list", "--json", *options).stdout)


def test_a_past_visit_becomes_a_subject_without_a_photo(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path
):
    clip = f'source = "{media / "face_noface.mov"}"\nloop = true'
    settings = (*KEEPING, "strangers.keep_pictures = true")
    device = make_device(mosquitto.port, enrolled=False, settings=settings, cameras={"front": clip})
    with subscriber(mosquitto.port) as heard:
        device.start()
        wait_until(lambda: device.visits() >= 2, "the man twice")
        before, [man], after = device.visits(), strangers(device), device.visits()
        assert before <= man["seen"] <= after
        assert man["cameras"] == ["front"]
        assert "once" not in device.edge("strangers", "list").stdout
        sheet = device.directory / "man.png"
        told = device.edge("strangers", "show", man["best_visit"], "--sheet", str(sheet))
        assert told.returncode == 0, told.stderr
        assert cv2.imread(str(sheet)).shape[0] > 200
        told = device.edge("enroll", "p-new", "--visit", man["best_visit"], "--all-visits")
        assert told.returncode == 0, told.stderr
        since = datetime.now(UTC)
        wait_until(lambda: device.said("gallery swapped"))
        heard.wait(lambda: ("match", "p-new") in decided(heard, since))
        assert not {man["best_visit"]} & {v for each in strangers(device) for v in each["visits"]}
        assert device.edge("enroll", "p-2", "--visit", man["best_visit"]).returncode == 1
        gone = device.edge("strangers", "show", man["best_visit"], "--sheet", str(sheet))
        assert (gone.returncode, "no picture is kept" in gone.stderr) == (1, True)
        assert device.stop() == 0
        assert "p-new" not in device.log_path.read_text()
    device.settings = KEEPING[1:]
    device.start()
    wait_until(lambda: not list((device.state / "strangers").iterdir()), "nothing is kept any more")
    assert device.stop() == 0


def test_who_was_taken_for_somebody_is_not_again(
    mosquitto: Mosquitto, make_device: MakeDevice, media: Path, tmp_path: Path
):
    """The visitor passes as somebody else, by a threshold that half of all strangers pass; it is denied."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("carphone_pristine.mp4", "no_face.mp4"):
        (folder / name).symlink_to(media / name)
    device = make_device(
        mosquitto.port,
        enrolled=False,
        settings=(*KEEPING, "decision.threshold = 0.09", "decision.margin = 0.0"),
        cameras={"front": f'source = "{folder}"\nloop = true'},
    )
    another = media / "orl-s40-01.pgm"  # scores .25 to .32 with the man of the clip
    assert device.edge("enroll", "p-man", str(another)).returncode == 0
    with subscriber(mosquitto.port) as heard:
        device.start()
        wait_until(lambda: device.visits("matched"), "the match")
        [matched, *_] = strangers(device, "--matched")
        assert matched["subject"] == "p-man"
        assert strangers(device) == [], "who was a match is no stranger"
        assert "p-man" in device.edge("strangers", "list", "--matched").stdout
        refused = device.edge("enroll", "p-new", "--visit", matched["best_visit"])
        assert refused.returncode == 1
        assert f"edge gallery deny p-man --visit {matched['best_visit']}" in refused.stderr
        told = device.edge("gallery", "deny", "p-man", "--visit", matched["best_visit"])
        assert told.returncode == 0, told.stderr
        denied_at = datetime.now(UTC)
        heard.wait(lambda: ("reject", "ambiguous") in decided(heard, denied_at))
        assert device.edge("gallery", "deny").stdout == "p-man: 1 face(s)\n"
        assert device.edge("subjects", "remove", "p-man").returncode == 0
        assert device.edge("gallery", "deny").stdout == "", "who is removed takes its denials along"
        assert strangers(device, "--matched") == [], "and the visits that were taken for it"
        assert device.stop() == 0
        assert "p-man" not in device.log_path.read_text()


def test_a_door_whose_denials_are_damaged_serves_and_says_so(mosquitto: Mosquitto, make_device: MakeDevice):
    device = make_device(mosquitto.port)
    denials = device.state / "denials.sealed"
    denials.write_bytes(b"torn")
    with subscriber(mosquitto.port) as heard:
        device.start()
        heard.wait(lambda: heard.on("/health"))
        health = json.loads(heard.on("/health")[-1])
        assert health["counters"]["denials.refused"] == 1
        assert device.said("denials refused")
        assert health["problems"] == ["denials_lost"]
        assert (denials.exists(), denials.with_name("denials.sealed.damaged").read_bytes()) == (
            False,
            b"torn",
        )
        assert device.stop() == 0


def test_faces_are_those_of_the_photos_that_somebody_is_enrolled_from(
    make_device: MakeDevice, still: Path, media: Path
):
    clip = f'source = "{media / "single_face.mp4"}"'
    device = make_device(
        free_port(), enrolled=False, settings=("gallery.keep_crops = true",), cameras={"front": clip}
    )
    assert device.edge("enroll", "p-man", str(still)).returncode == 0
    assert len(list((device.state / "crops").iterdir())) == 1
    assert device.edge("enroll", "p-man", "--camera", "front").returncode == 0
    assert list((device.state / "crops").iterdir()) == []
