"""`--nudge`: doors at a real broker are asked to synchronise, and the operator is told who has it."""

import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.cli.fleet.publish import ask_doors
from edge.core.errors import FleetError, LinkError
from edge.core.text import printable
from edge.device.settings.load import Settings, load
from edge.fleet.rollout import gallery as rollout
from edge.fleet.rollout.gallery import Arrival, DoorSync, Wanted
from edge.mqtt.contract.messages import CandidatePayload, GalleryReportedPayload
from tests.support.broker import Mosquitto, leave, subscriber
from tests.support.command_line import run
from tests.support.fleets import make_fleet, people
from tests.support.waits import LIMIT_S, Stopwatch

EARLIER, LATER = datetime(2026, 11, 24, 2, 0, tzinfo=UTC), datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
ERROR = "an old state is offered"


def report(published: int | None, scope: str | None = "front", **other: Any) -> GalleryReportedPayload:
    fields = {"status": "current", "synchronised_at": EARLIER, "error": None, **other}
    return GalleryReportedPayload(
        at=LATER, scope=scope, published=published, version=1, count=1, model_id="sface", **fields
    )


def candidate(version: int | None) -> CandidatePayload | None:
    if version is None:
        return None
    return CandidatePayload(published=version, version=9, count=1, model_id="other", agreed=0, differed=0)


def test_a_candidate_is_told_and_read_under_its_name_in_the_last_release_as_well():
    told = report(57, candidate=candidate(2))
    assert json.loads(told.model_dump_json())["beside"] == json.loads(told.model_dump_json())["candidate"]
    old = {name: value for name, value in json.loads(told.model_dump_json()).items() if name != "candidate"}
    assert GalleryReportedPayload.model_validate_json(json.dumps(old)) == told


def test_a_newer_door_that_tells_more_is_read():
    arrival = Arrival({"front": Wanted(57)})
    told = json.loads(report(57).model_dump_json()) | {"a_field_of_a_newer_door": 1}
    arrival.hear("edge/v1/hq/door-03/gallery/reported", json.dumps(told).encode(), retained=True)
    assert arrival.doors["door-03"].report == report(57)


@pytest.mark.parametrize(
    ("door", "wanted", "state"),
    [
        pytest.param(DoorSync(True, report(58)), Wanted(58), "has it", id="has it"),
        pytest.param(DoorSync(False, report(58)), Wanted(58), "has it", id="has it, and is off"),
        pytest.param(DoorSync(True, report(57)), Wanted(58), "waiting", id="an older one"),
        pytest.param(DoorSync(True, report(None)), Wanted(58), "waiting", id="changed by hand"),
        pytest.param(DoorSync(False, report(57)), Wanted(58), "offline", id="off"),
        pytest.param(DoorSync(True, None), Wanted(58), "waiting", id="says nothing"),
        pytest.param(DoorSync(False, None), Wanted(58), "offline", id="never seen"),
        pytest.param(DoorSync(True, report(10**9)), Wanted(58), "waiting", id="a thief's, from before"),
        pytest.param(
            DoorSync(True, report(59), fresh=True), Wanted(58), "has it", id="a newer one meanwhile"
        ),
        pytest.param(
            DoorSync(True, report(10**9, status="refused", error=ERROR), fresh=True),
            Wanted(58),
            "refused",
            id="a thief's, and nothing else",
        ),
        pytest.param(
            DoorSync(True, report(57, status="refused", error=ERROR)),
            Wanted(58),
            "waiting",
            id="refused before",
        ),
        pytest.param(
            DoorSync(True, report(57, scope="back")), Wanted(58), "another scope", id="another scope"
        ),
        pytest.param(DoorSync(True, report(57, scope=None)), Wanted(58), "another scope", id="no fleet"),
        pytest.param(
            DoorSync(True, report(57, candidate=candidate(2))), Wanted(2, True), "has it", id="candidate"
        ),
        pytest.param(
            DoorSync(True, report(2, candidate=None)), Wanted(2, True), "waiting", id="no candidate"
        ),
        pytest.param(
            DoorSync(True, report(57, candidate=candidate(1))), Wanted(0, True), "waiting", id="not dropped"
        ),
        pytest.param(DoorSync(True, report(57, candidate=None)), Wanted(0, True), "has it", id="dropped"),
        pytest.param(
            DoorSync(True, report(None, status="refused", error=ERROR, rights=58), fresh=True),
            Wanted(58, removal=True),
            "has it",
            id="removed by it, of another embedder",
        ),
        pytest.param(
            DoorSync(True, report(None, status="refused", error=ERROR, rights=57), fresh=True),
            Wanted(58, removal=True),
            "refused",
            id="removed by the one before",
        ),
        pytest.param(
            DoorSync(True, report(None, status="refused", error=ERROR, rights=58), fresh=True),
            Wanted(58),
            "refused",
            id="the gallery itself is wanted",
        ),
    ],
)
def test_what_a_door_says_of_itself_tells_whether_it_has_it(door: DoorSync, wanted: Wanted, state: str):
    assert Arrival({"front": wanted}).came_to(door)[0] == state


def test_a_report_is_fresh_once_another_synchronisation_has_ended():
    arrival = Arrival({"front": Wanted(58)})
    topic = "edge/v1/hq/door-03/gallery/reported"
    arrival.hear(topic, report(57).model_dump_json(by_alias=True).encode(), retained=True)
    for synchronised_at, fresh in ((EARLIER, False), (LATER, True)):
        said = report(57, synchronised_at=synchronised_at).model_dump_json(by_alias=True).encode()
        arrival.hear(topic, said, retained=False)
        arrival.hear(topic, b"{", retained=False)
        assert arrival.doors["door-03"].fresh is fresh


Answer = Callable[[int], GalleryReportedPayload | None]


class SimulatedDoor:
    """Reports its gallery, and answers a nudge with what `answer` makes of the version asked for."""

    def __init__(self, port: int, name: str, has: GalleryReportedPayload, answer: Answer) -> None:
        self.root, self.asked = f"edge/v1/hq/{name}", []
        self._answer = answer
        client = self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        client.on_message = self._on_message
        client.will_set(f"{self.root}/status", b"offline", 1, retain=True)
        client.connect("127.0.0.1", port)
        client.subscribe(f"{self.root}/gallery/desired", 1)
        client.loop_start()
        client.publish(f"{self.root}/status", b"online", 1, retain=True).wait_for_publish(LIMIT_S)
        self.tell(has)

    def tell(self, said: GalleryReportedPayload) -> None:
        self.client.publish(
            f"{self.root}/gallery/reported", said.model_dump_json(by_alias=True), 1, retain=True
        )

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        self.asked.append(json.loads(message.payload)["version"])
        if (said := self._answer(self.asked[-1])) is not None:
            self.tell(said)

    def close(self) -> None:
        leave(self.client)


@pytest.fixture
def broker(mosquitto: Mosquitto) -> Mosquitto:
    return mosquitto


def settings_file(directory: Path) -> Path:
    return directory / "edge.toml"


@pytest.fixture
def settings(tmp_path: Path, broker: Mosquitto) -> Settings:
    config = settings_file(tmp_path)
    config.write_text(f'site = "hq"\n[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}\n')
    return load(config)


def follows(version: int) -> GalleryReportedPayload:
    return report(version, synchronised_at=LATER)


def refuses(version: int) -> GalleryReportedPayload:
    return report(57, status="refused", error=ERROR, synchronised_at=LATER)


def test_doors_of_the_scope_are_nudged_and_who_has_it_not_is_named(
    broker: Mosquitto, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    with ExitStack() as stack:

        def door(name: str, has: GalleryReportedPayload, answer: Answer) -> SimulatedDoor:
            made = SimulatedDoor(broker.port, name, has, answer)
            stack.callback(made.close)
            return made

        good, bad = door("door-1", report(57), follows), door("door-2", report(57), refuses)
        other = door(
            "door-3", report(3, scope="back"), lambda version: report(version, "back", synchronised_at=LATER)
        )
        assert ask_doors(settings, {"front": Wanted(58)}, [], 10.0) == 1
        told = capsys.readouterr().out.splitlines()
        assert told == [
            "door-1: has it",
            f"door-2: refused: {ERROR}",
            "1 of 2 door(s) have not got it: door-2",
        ]
        assert (good.asked, bad.asked, other.asked) == ([58], [58], [])
        assert ask_doors(settings, {"front": Wanted(58)}, ["door-1"], 10.0) == 0
        assert ask_doors(settings, {"front": Wanted(58), "back": Wanted(4)}, ["door-3"], 10.0) == 0
        assert other.asked == [4]


@pytest.mark.parametrize("removal", [False, True])
def test_doors_are_asked_at_a_pace_that_one_server_bears(
    broker: Mosquitto, settings: Settings, monkeypatch: pytest.MonkeyPatch, removal: bool
):
    monkeypatch.setattr(rollout, "NUDGES_PER_S", 4)
    monkeypatch.setattr(rollout, "REMOVALS_PER_S", 8)
    asked_s: list[float] = []

    def answer(version: int) -> GalleryReportedPayload:
        asked_s.append(time.monotonic())
        return follows(version)

    with ExitStack() as stack:
        for number in range(12):
            stack.callback(SimulatedDoor(broker.port, f"door-{number}", report(57), answer).close)
        assert ask_doors(settings, {"front": Wanted(58, removal=removal)}, [], LIMIT_S) == 0
    assert len(asked_s) == 12
    least_s = 4 / 8 if removal else 8 / 4
    assert asked_s[-1] - asked_s[0] >= 0.9 * least_s


def test_a_door_that_was_shown_an_older_one_by_a_cache_is_asked_again(
    broker: Mosquitto, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rollout, "ASK_AGAIN_S", 0.1)
    answers = [report(57, synchronised_at=LATER), follows(58)]
    door = SimulatedDoor(broker.port, "door-1", report(57), lambda _: answers.pop(0))
    assert ask_doors(settings, {"front": Wanted(58)}, [], LIMIT_S) == 0
    door.close()
    assert door.asked == [58, 58]


def test_who_is_only_in_the_candidate_is_revoked_there_and_the_doors_are_waited_for(
    broker: Mosquitto, settings: Settings, tmp_path: Path
):
    fleet = make_fleet(tmp_path / "fleet", "front")
    for _ in range(3):
        fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("front", people("alice", "bob", "eve"), candidate=True)
    door = SimulatedDoor(
        broker.port,
        "door-1",
        report(3, candidate=candidate(1)),
        lambda version: report(3, candidate=candidate(2), synchronised_at=LATER),
    )
    options = ("--fleet", fleet.directory, "--wait", "15")
    told = run("fleet", "revoke", "eve", "--nudge", *options, config=settings_file(tmp_path))
    door.close()
    assert door.asked == [0], told
    assert "door-1: has it" in told
    with subscriber(broker.port) as heard:
        heard.wait(lambda: heard.on("door-1/gallery/reported"))
        assert not heard.on("door-1/gallery/desired"), "a version that is none of its gallery's stays not"


def test_the_status_of_a_fleet_names_the_doors_that_lack_a_removal_and_asks_them_for_nothing(
    broker: Mosquitto, settings: Settings, tmp_path: Path
):
    fleet = make_fleet(tmp_path / "fleet", "front", "back")
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.revoke("bob")
    show = ("fleet", "status", "--revoked", "--fleet", fleet.directory)
    assert "no door has reported" in run(*show, config=settings_file(tmp_path))
    doors = [
        SimulatedDoor(broker.port, f"door-{number}", has, lambda _: None)
        for number, has in enumerate(
            [report(2), report(1), report(1, status="refused", error=ERROR, rights=2), report(7, "back")], 1
        )
    ]
    told = run(*show, config=settings_file(tmp_path)).splitlines()
    as_json = json.loads(run(*show, "--json", config=settings_file(tmp_path)))
    for door in doors:
        door.close()
    assert told[told.index("bob") :] == [
        "bob",
        "door-1: has it",
        "door-2: waiting: it has version 1",
        "door-3: has it: who was removed, not the gallery: that is of an embedder that it cannot use",
        "1 of 3 door(s) have not got it: door-2",
        "who was revoked may still pass where it is missing",
    ]
    assert as_json["doors"] == {"door-1": "has it", "door-2": "waiting", "door-3": "has it"}
    assert not any(door.asked for door in doors)


def test_a_door_that_is_away_is_asked_when_it_is_back(
    broker: Mosquitto, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    door = SimulatedDoor(broker.port, "door-1", report(57), follows)
    door.client.publish(f"{door.root}/status", b"offline", 1, retain=True).wait_for_publish(LIMIT_S)
    door.close()
    assert ask_doors(settings, {"front": Wanted(58)}, [], 10.0) == 1
    assert "door-1: offline: it follows when it is back" in capsys.readouterr().out
    with subscriber(broker.port) as heard:
        heard.wait(lambda: heard.on("door-1/gallery/desired"))
        assert json.loads(heard.on("door-1/gallery/desired")[0])["version"] == 58


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", ["[/red] [link=http://a]b", "\x1b]0;owned\x07", "two\nlines"])
def test_what_a_door_says_is_shown_as_text(
    broker: Mosquitto,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    error: str,
):
    if terminal:
        for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": "120"}.items():
            monkeypatch.setenv(name, value)
    hostile = report(57, status="refused", error=error, synchronised_at=LATER)
    door = SimulatedDoor(broker.port, "door-1", report(57), lambda _: hostile)
    assert ask_doors(settings, {"front": Wanted(58)}, [], 10.0) == 1
    door.close()
    shown = capsys.readouterr().out
    assert printable(error) in shown
    assert not {"\x1b", "\x07"} & set(shown)


@pytest.mark.parametrize("online", [True, False])
def test_a_nudge_that_the_broker_forbids_is_said_at_once(tmp_path: Path, settings: Settings, online: bool):
    acl = tmp_path / "acl"
    acl.write_text("topic read edge/v1/#\ntopic write edge/v1/+/door-1/status\n")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {acl}")).start()
    strict = settings.model_copy(update={"mqtt": settings.mqtt.model_copy(update={"port": broker.port})})
    door = SimulatedDoor(broker.port, "door-1", report(57), follows) if online else None
    watch = Stopwatch()
    try:
        with pytest.raises(LinkError, match="door-1/gallery/desired: Not authorized"):
            ask_doors(strict, {"front": Wanted(58)}, ["door-1"], 60.0)
    finally:
        if door is not None:
            door.close()
        broker.stop()
    assert watch.undisturbed_s < 20


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_nudge_speaks_the_version_that_the_settings_name(
    broker: Mosquitto, settings: Settings, version: Literal["5", "3.1.1"]
):
    mqtt = settings.mqtt.model_copy(update={"version": version})
    assert ask_doors(settings.model_copy(update={"mqtt": mqtt}), {"front": Wanted(58)}, [], 1.0) == 1
    spoken = "p5" if version == "5" else "p2"
    log = (broker.directory / f"mosquitto-{broker.port}.log").read_text()
    assert set(re.findall(r"New client connected .*\((p\d),", log)) == {spoken}


def test_nobody_at_the_broker_is_said_and_no_success(
    broker: Mosquitto, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    assert ask_doors(settings, {"front": Wanted(58)}, [], 1.0) == 1
    assert "no door has reported" in capsys.readouterr().out


OTHER = "other@12345678"


def switch(tmp_path: Path, *options: str) -> str:
    directory = tmp_path / "fleet"
    if not directory.exists():
        fleet = make_fleet(directory, "front")
        fleet.publish_gallery("front", people("alice"))
        fleet.publish_gallery("front", people("alice", model_id=OTHER), candidate=True)
    return run("fleet", "switch", "front", *options, "--fleet", directory, config=settings_file(tmp_path))


@pytest.mark.parametrize(
    ("has", "why"),
    [
        pytest.param(report(1, embedders=("sface", OTHER)), None, id="has it installed"),
        pytest.param(report(1, candidate=CandidatePayload(
            published=1, version=9, count=1, model_id=OTHER, agreed=0, differed=0)), None, id="tries it"),
        pytest.param(report(1, embedders=("sface",)), "it embeds with sface", id="fixed"),
        pytest.param(report(1), "it does not say that it can", id="of the last release, no candidate"),
    ],
)  # fmt: skip
def test_a_switch_that_a_door_could_not_follow_is_refused(
    broker: Mosquitto, settings: Settings, tmp_path: Path, has: GalleryReportedPayload, why: str | None
):
    with ExitStack() as stack:
        for name, said in {"door-1": report(1, embedders=(OTHER,)), "door-2": has}.items():
            stack.callback(SimulatedDoor(broker.port, name, said, lambda _: None).close)
        stack.callback(
            SimulatedDoor(broker.port, "door-3", report(1, "back", embedders=()), lambda _: None).close
        )
        if why is None:
            assert "version 2 with 1 subject(s)" in switch(tmp_path)
            return
        with pytest.raises(FleetError, match=rf"nothing was switched: 1 of 2 door.* door-2: {why}"):
            switch(tmp_path)
        assert "version 2 with 1 subject(s)" in switch(tmp_path, "--force")


def test_a_switch_without_anybody_who_could_say_is_refused(
    broker: Mosquitto, settings: Settings, tmp_path: Path
):
    with pytest.raises(FleetError, match="no door has reported"):
        switch(tmp_path)
    broker.stop()
    with pytest.raises(FleetError, match=r"no door can be asked .* cannot be reached.* --force"):
        switch(tmp_path)
    assert "there is no candidate any more" in switch(tmp_path, "--drop"), "what is dropped asks no door"
