"""An operator, two doors and a web server: who is published where, revoked at once, and never forged."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import paho.mqtt.publish as mqtt
import pytest

from edge.gallery.layout import full_path
from edge.mqtt.payloads import EventPayload
from edge.mqtt.payloads_sync import GalleryReportedPayload
from tests.broker import Mosquitto, Subscriber, subscriber
from tests.e2e.device import Device, edge
from tests.fleet.fleets import StaticServer, serving

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]

PLAYED = ("face_noface.mov", "no_face.mp4", "carphone_pristine.mp4", "no_face.mp4")
"""At every door the employee comes and goes, then the visitor."""


class Operator:
    """Whoever runs the doors: two people enrolled from one photo each, and a fleet of two scopes."""

    def __init__(self, directory: Path, models_dir: Path, employee: Path, visitor: Path) -> None:
        self.fleet = directory / "fleet"
        self.config = directory / "office.toml"
        self.config.write_text(
            f'site = "test"\nstate_dir = "{directory}/state"\nmodels_dir = "{models_dir}"\n'
        )
        self.edge("enroll", "p-employee", str(employee), "--group", "front")
        self.edge("enroll", "p-visitor", str(visitor), "--group", "back")
        self.run("init", "test", "--scope", "front", "--scope", "back")

    def edge(self, *arguments: str) -> None:
        done = edge(*arguments, config=self.config)
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> str:
        done = edge("fleet", *arguments, "--fleet", str(self.fleet))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def publish(self, scope: str, *options: str) -> None:
        arguments = ("publish", scope, "--group", scope, *options, "--fleet", str(self.fleet))
        self.edge("fleet", *arguments)

    def settings(self, scope: str, url: str) -> tuple[str, ...]:
        return (
            f'sync.url = "{url}"',
            f'sync.scope = "{scope}"',
            f'sync.trusted_root = "{self.fleet}/published/metadata/1.root.json"',
            f'sync.sealing_key = "{self.fleet}/keys/sealing/{scope}.key"',
        )


@pytest.fixture
def operator(tmp_path: Path, models_dir: Path, still: Path, media: Path) -> Operator:
    capture = cv2.VideoCapture(str(media / "carphone_pristine.mp4"))
    ok, image = capture.read()
    capture.release()
    assert ok
    visitor = tmp_path / "visitor.png"
    cv2.imwrite(str(visitor), image)
    directory = tmp_path / "office"
    directory.mkdir()
    return Operator(directory, models_dir, still, visitor)


@pytest.fixture
def server(operator: Operator) -> Iterator[StaticServer]:
    with serving(operator.fleet / "published") as server:
        yield server


@pytest.fixture
def playlist(tmp_path: Path, media: Path) -> str:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, name in enumerate(PLAYED):
        (folder / f"{number}-{name}").symlink_to(media / name)
    return f'source = "{folder}"\nloop = true'


def reports(heard: Subscriber, door: str) -> list[GalleryReportedPayload]:
    return [
        GalleryReportedPayload.model_validate_json(data) for data in heard.on(f"/{door}/gallery/reported")
    ]


def decisions(heard: Subscriber, door: str, since: datetime) -> list[tuple[str, str | None]]:
    """Return (type, subject or reason) of the decisions of a door about frames captured since a moment."""
    events = map(EventPayload.model_validate_json, heard.on(f"/{door}/camera/front/journal"))
    return [
        (event.event_type, event.subject.id if event.subject else event.reason)
        for event in events
        if event.event_type != "left" and event.captured_at > since
    ]


def nudge(mosquitto: Mosquitto, door: str, version: int) -> None:
    mqtt.single(
        f"edge/v1/test/{door}/gallery/desired",
        json.dumps({"schema": "edge.gallery-desired/1", "version": version}),
        qos=1,
        hostname="127.0.0.1",
        port=mosquitto.port,
    )


def test_two_doors_one_operator_and_an_attacker(
    operator: Operator,
    server: StaticServer,
    mosquitto: Mosquitto,
    make_device: MakeDevice,
    playlist: str,
    tmp_path: Path,
):
    operator.publish("front")
    operator.publish("back", "--valid-days", "30")
    doors = [
        make_device(
            mosquitto.port,
            enrolled=False,
            name=f"{scope}-door",
            settings=operator.settings(scope, server.url),
            cameras={"front": playlist},
        )
        for scope in ("front", "back")
    ]
    with subscriber(mosquitto.port) as heard:
        for door in doors:
            door.start()
        for door in ("front-door", "back-door"):
            nudge(mosquitto, door, 1)
        heard.wait(lambda: all(reports(heard, door)[-1].count == 1 for door in ("front-door", "back-door")))
        assert reports(heard, "front-door")[-1].not_after is None
        assert reports(heard, "back-door")[-1].not_after is not None

        synced_at = datetime.now(UTC)
        employee, visitor = ("match", "p-employee"), ("match", "p-visitor")
        stranger = ("reject", "below_threshold")
        for door, theirs in (("front-door", employee), ("back-door", visitor)):
            heard.wait(lambda d=door, t=theirs: {t, stranger} <= set(decisions(heard, d, synced_at)), 60)
            assert set(decisions(heard, door, synced_at)) == {theirs, stranger}, "only its own people"

        # The operator revokes the employee: out of the running door within five seconds.
        before = tmp_path / "as-it-was"
        shutil.copytree(operator.fleet / "published", before)
        operator.run("revoke", "p-employee")
        revoked_s = time.time()
        nudge(mosquitto, "front-door", 2)
        heard.wait(lambda: reports(heard, "front-door")[-1].count == 0, 10)
        report = reports(heard, "front-door")[-1]
        assert report.revoked_applied_at is not None
        assert report.revoked_applied_at.timestamp() - revoked_s < 5
        applied_at = report.revoked_applied_at
        heard.wait(lambda: len(decisions(heard, "front-door", applied_at)) >= 2, 60)
        assert set(decisions(heard, "front-door", applied_at)) == {("reject", "gallery_empty")}

        # Whoever owns the server now puts the old state back, and hands the front's gallery to the back door.
        shutil.rmtree(operator.fleet / "published")
        shutil.copytree(before, operator.fleet / "published")
        nudge(mosquitto, "front-door", 3)
        heard.wait(lambda: reports(heard, "front-door")[-1].status == "refused")
        old = reports(heard, "front-door")[-1]
        assert "old state" in (old.error or "")
        galleries = list((operator.fleet / "published" / "targets").rglob("*full.edge"))
        front, back = (
            next(path for path in galleries if Path(full_path(scope)).parent.name in path.parts)
            for scope in ("front", "back")
        )
        attacked_at = datetime.now(UTC)
        back.write_bytes(front.read_bytes())
        shutil.rmtree(doors[1].state / "sync" / "metadata")  # and the door has lost its cache
        (doors[1].state / "sync" / "floors.json").write_text(
            json.dumps(
                json.loads((doors[1].state / "sync" / "floors.json").read_text()) | {"installed_as": 0}
            )
        )
        nudge(mosquitto, "back-door", 3)
        heard.wait(lambda: reports(heard, "back-door")[-1].status == "refused")
        shutil.rmtree(operator.fleet / "published")
        refused = len(reports(heard, "back-door"))
        nudge(mosquitto, "back-door", 4)
        heard.wait(lambda: len(reports(heard, "back-door")) > refused)
        assert reports(heard, "back-door")[-1].status == "refused"
        assert (old.count, reports(heard, "back-door")[-1].count) == (0, 1), "what was in force is"
        heard.wait(lambda: visitor in decisions(heard, "back-door", attacked_at), 60)
        heard.wait(lambda: len(decisions(heard, "front-door", attacked_at)) >= 2, 60)
        assert set(decisions(heard, "front-door", attacked_at)) == {("reject", "gallery_empty")}
        assert [door.stop() for door in doors] == [0, 0]
    for door in doors:
        told = door.log_path.read_text()
        assert "p-employee" not in told
        assert "p-visitor" not in told


def test_past_its_end_a_gallery_closes_the_door_or_not_as_configured(
    operator: Operator, server: StaticServer, mosquitto: Mosquitto, make_device: MakeDevice, playlist: str
):
    operator.publish("front", "--valid-days", "0")
    policies = {"closed": ("reject", "gallery_stale"), "open": ("match", "p-employee")}
    began_at = datetime.now(UTC)
    with subscriber(mosquitto.port) as heard:
        for policy, expected in policies.items():
            settings = (*operator.settings("front", server.url), f'sync.stale = "{policy}"')
            device = make_device(
                mosquitto.port, enrolled=False, name=policy, settings=settings, cameras={"front": playlist}
            )
            done = device.edge("sync")
            assert done.returncode == 0, done.stderr
            device.start()
            heard.wait(lambda p=policy: decisions(heard, p, began_at), 30)
            assert decisions(heard, policy, began_at)[0] == expected
            assert device.stop() == 0
