"""An operator, two doors and a web server: who is published where, revoked at once, and never forged."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import cv2
import paho.mqtt.publish as mqtt
import pytest

from edge.face.manifest import is_installed, load_manifest
from edge.gallery.format.published import full_path
from edge.mqtt.contract.messages import EventPayload, GalleryReportedPayload
from tests.e2e.device import Device
from tests.support.broker import Mosquitto, Subscriber, subscriber
from tests.support.command_line import edge, write_config
from tests.support.fleets import StaticServer, serving
from tests.support.waits import Stopwatch

pytestmark = pytest.mark.e2e

MakeDevice = Callable[..., Device]

PLAYED = ("face_noface.mov", "no_face.mp4", "carphone_pristine.mp4", "no_face.mp4")
"""At every door the employee comes and goes, then the visitor."""


class Operator:
    """Whoever runs the doors: two people enrolled from one photo each, and a fleet of two scopes."""

    def __init__(
        self, directory: Path, models_dir: Path, employee: Path, visitor: Path, broker: Mosquitto
    ) -> None:
        self.fleet = directory / "fleet"
        self.config = write_config(
            directory,
            f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}',
            name="office.toml",
            site="test",
            state_dir=directory / "state",
            models_dir=models_dir,
        )
        self.photos = directory / "photos"
        self.photos.mkdir()
        for name, photo, group in (("p-employee", employee, "front"), ("p-visitor", visitor, "back")):
            shutil.copy(photo, self.photos / f"{name}.png")
            self.edge("enroll", name, str(self.photos / f"{name}.png"), "--group", group)
        self.run("init", "test", "--scope", "front", "--scope", "back")

    def edge(self, *arguments: str) -> str:
        done = edge(*arguments, config=self.config)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *arguments: str) -> str:
        done = edge("fleet", *arguments, "--fleet", str(self.fleet))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def publish(self, scope: str, *options: str) -> str:
        return self.nudging("publish", scope, "--group", scope, *options)

    def nudging(self, *arguments: str) -> str:
        """Run a command that may `--nudge`."""
        return self.edge("fleet", *arguments, "--fleet", str(self.fleet))

    def settings(self, scope: str, url: str) -> tuple[str, ...]:
        return (
            f'sync.url = "{url}"',
            f'sync.scope = "{scope}"',
            f'sync.trusted_root = "{self.fleet}/published/metadata/1.root.json"',
            f'sync.sealing_key = "{self.fleet}/keys/sealing/{scope}.key"',
        )


@pytest.fixture
def office_models(request: pytest.FixtureRequest, models_dir: Path, tmp_path: Path) -> Path:
    """Where the operator has its models; with a pair's name as the parameter, its parts are there too."""
    if getattr(request, "param", "sface-int8") != "sface-0095":
        return models_dir
    recommended: Path = request.getfixturevalue("recommended_dir")
    directory = tmp_path / "models-of-the-office"
    shutil.copytree(recommended, directory)
    shutil.copy(models_dir / load_manifest("yunet").file, directory)
    return directory


@pytest.fixture
def operator(tmp_path: Path, office_models: Path, still: Path, media: Path, mosquitto: Mosquitto) -> Operator:
    capture = cv2.VideoCapture(str(media / "carphone_pristine.mp4"))
    ok, image = capture.read()
    capture.release()
    assert ok
    visitor = tmp_path / "visitor.png"
    cv2.imwrite(str(visitor), image)
    directory = tmp_path / "office"
    directory.mkdir()
    return Operator(directory, office_models, still, visitor, mosquitto)


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
        names = ("front-door", "back-door")
        heard.wait(lambda: all(reports(heard, door) for door in names))
        assert "front-door: has it" in operator.publish("front", "--nudge")
        assert "back-door: has it" in operator.publish("back", "--valid-days", "30", "--nudge")
        heard.wait(lambda: all(reports(heard, door)[-1].count == 1 for door in names))
        assert [reports(heard, door)[-1].published for door in names] == [1, 1]
        assert reports(heard, "front-door")[-1].not_after is None
        assert reports(heard, "back-door")[-1].not_after is not None

        synced_at = datetime.now(UTC)
        employee, visitor = ("match", "p-employee"), ("match", "p-visitor")
        stranger = ("reject", "below_threshold")
        for door, theirs in (("front-door", employee), ("back-door", visitor)):
            heard.wait(lambda d=door, t=theirs: {t, stranger} <= set(decisions(heard, d, synced_at)))
            assert set(decisions(heard, door, synced_at)) == {theirs, stranger}, "only its own people"

        # The operator revokes the employee: out of the running door within five seconds.
        before = tmp_path / "as-it-was"
        shutil.copytree(operator.fleet / "published", before)
        watch = Stopwatch()
        assert "front-door: has it" in operator.nudging("revoke", "p-employee", "--nudge")
        nudges = [each for each in heard.seen if each.topic.endswith("front-door/gallery/desired")]
        revoked_s = nudges[-1].at_s
        heard.wait(lambda: reports(heard, "front-door")[-1].count == 0)
        report = reports(heard, "front-door")[-1]
        assert report.revoked_applied_at is not None
        assert report.revoked_applied_at.timestamp() - revoked_s < 5 + watch.disturbed_s
        applied_at = report.revoked_applied_at
        heard.wait(lambda: decisions(heard, "front-door", applied_at))
        assert set(decisions(heard, "front-door", applied_at)) == {("reject", "gallery_empty")}

        # Whoever owns the server now puts the old state back, and hands the front's gallery to the back door.
        shutil.rmtree(operator.fleet / "published")
        shutil.copytree(before, operator.fleet / "published")
        nudge(mosquitto, "front-door", 3)
        heard.wait(lambda: reports(heard, "front-door")[-1].status == "refused")
        old = reports(heard, "front-door")[-1]
        assert ("old state" in (old.error or ""), old.reason, old.published) == (True, "rollback", 2)
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
        heard.wait(lambda: visitor in decisions(heard, "back-door", attacked_at))
        heard.wait(lambda: decisions(heard, "front-door", attacked_at))
        assert set(decisions(heard, "front-door", attacked_at)) == {("reject", "gallery_empty")}
        assert [door.stop() for door in doors] == [0, 0]
    for door in doors:
        told = door.log_path.read_text()
        assert "p-employee" not in told
        assert "p-visitor" not in told


def test_past_its_end_a_gallery_closes_the_door_or_not_as_configured(
    operator: Operator, server: StaticServer, mosquitto: Mosquitto, make_device: MakeDevice, playlist: str
):
    operator.publish("front", "--valid-days", "0.00001")
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
            heard.wait(lambda p=policy: decisions(heard, p, began_at))
            assert decisions(heard, policy, began_at)[0] == expected
            assert device.stop() == 0


@pytest.mark.parametrize(
    ("office_models", "target"),
    [("sface-fp32", "sface-fp32"), ("sface-0095", "sface-0095")],
    indirect=["office_models"],
    ids=["floats", "a pair"],
)
def test_the_doors_move_to_another_embedder_and_back(
    target: str,
    operator: Operator,
    server: StaticServer,
    mosquitto: Mosquitto,
    make_device: MakeDevice,
    models_dir: Path,
    media: Path,
    tmp_path: Path,
):
    old, new = (load_manifest(name) for name in ("sface-int8", target))
    of_the_door = tmp_path / "models-of-the-door"
    of_the_door.mkdir()
    for name in ("yunet", "sface-int8"):
        shutil.copy(models_dir / load_manifest(name).file, of_the_door)
    operator.publish("front")
    door = make_device(
        mosquitto.port,
        enrolled=False,
        name="front-door",
        settings=(
            *operator.settings("front", server.url),
            'recognition.embedder = "auto"',
            "gallery.candidate_share = 1.0",
            "decision.cooldown_s = 1.0",
        ),
        cameras={"front": f'source = "{media / "face_noface.mov"}"\nloop = true'},
    )
    door.models_dir = of_the_door

    def matched_by(heard: Subscriber, since: datetime) -> set[str]:
        events = map(EventPayload.model_validate_json, heard.on("/front-door/camera/front/journal"))
        return {e.model.embedder for e in events if e.event_type == "match" and e.captured_at > since}

    with subscriber(mosquitto.port) as heard:
        assert door.edge("sync").returncode == 0
        door.start()

        # The photos are embedded anew by the operator; model and gallery arrive beside what serves.
        operator.edge("fleet", "reembed", "--photos", str(operator.photos), "--model", target)
        operator.publish("front", "--candidate", "--model", target, "--nudge")
        heard.wait(lambda: reports(heard, "front-door") and reports(heard, "front-door")[-1].beside)
        report = reports(heard, "front-door")[-1]
        assert (report.model_id, report.beside.model_id) == (old.model_id, new.model_id)
        assert is_installed(new, of_the_door), "weights travel with the gallery"
        tried_at = datetime.now(UTC)
        heard.wait(lambda: matched_by(heard, tried_at))
        assert matched_by(heard, tried_at) == {"sface-int8"}, "what lies beside decides nothing"

        # One switch of model, gallery and threshold; the same command is the way back.
        for number, manifest in enumerate((new, old)):
            told = operator.nudging("switch", "front", "--nudge")
            assert "front-door: has it" in told
            assert 'recognition.embedder = "auto"' in told
            heard.wait(lambda m=manifest: reports(heard, "front-door")[-1].model_id == m.model_id)
            if number == 0:
                assert reports(heard, "front-door")[-1].beside.agreed >= 1
                assert reports(heard, "front-door")[-1].beside.differed == 0
            switched_at = datetime.now(UTC)
            heard.wait(lambda at=switched_at: matched_by(heard, at))
            assert matched_by(heard, switched_at) == {manifest.name}
        operator.nudging("switch", "front", "--drop", "--nudge")
        heard.wait(lambda: reports(heard, "front-door")[-1].beside is None)
        assert not door.said("refused")
        assert door.stop() == 0
