"""One floor of time for synchronisation, commands, validity and windows, and what a door does below it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.core.access import Access, Window
from edge.core.clock import FloorClock
from edge.core.errors import CommandError
from edge.core.files import write_key
from edge.core.metrics import Metrics
from edge.core.types import Reason
from edge.device.assembly.recognizer import admission
from edge.device.assembly.time import TIME_FILE, device_clock, follow_sync, time_known
from edge.device.commands.executor import CommandExecutor
from edge.device.commands.parse import Command, Rules
from edge.device.settings.load import Settings, load
from edge.device.sync.floors import BUILT_AT, FILE_NAME, Floors, save_floors
from edge.device.upkeep.synchronisation import synchronise
from edge.gallery.admission import Admission
from edge.gallery.format.seal import new_key
from edge.mqtt.broker import Received
from edge.mqtt.contract.messages import ResponsePayload
from tests.device.commands.test_parse import TOPICS, signed
from tests.gallery.test_admission import one
from tests.support.clock import START, SteppedClock
from tests.support.command_line import write_config
from tests.support.pushes import TRUSTED

MINUTE = timedelta(minutes=1)


@dataclass
class Door:
    """A door that starts again and again, by a clock that is set back."""

    directory: Path
    behind: str = "closed"
    wall: SteppedClock = field(default_factory=SteppedClock)
    done: list[str] = field(default_factory=list)
    told: list[ResponsePayload] = field(default_factory=list)

    def settings(self) -> Settings:
        access = f'access.clock_behind = "{self.behind}"'
        return load(write_config(self.directory, access, state_dir=self.directory / "state"))

    def start(self, at: datetime) -> FloorClock:
        """Start while the clock shows `at`."""
        self.wall.shift = at - START
        clock = device_clock(self.settings(), self.wall)
        clock.tick()
        self.commands = CommandExecutor(
            TOPICS,
            self.settings().state_dir / "commands",
            lambda: Rules((TRUSTED,), True, time_known(clock, self.settings)()),
            actions={"reload": self.act, "subjects": self.act},
            errands=self.no_errand,
            publish=lambda topic, payload, _: self.told.append(ResponsePayload.model_validate_json(payload)),
            metrics=Metrics(),
            clock=clock,
            prove=clock.prove,
        )
        return clock

    def act(self, command: Command) -> dict[str, Any]:
        self.done.append(command.transaction)
        return {}

    def no_errand(self, command: Command) -> Any:
        raise CommandError("not at this door")

    def ask(self, transaction: str, expires_at: datetime, verb: str = "reload") -> str | None:
        data = signed(verb, {}, transaction=transaction, expires_at=expires_at.isoformat())
        self.commands.take(verb, Received(1, TOPICS.command(verb), data))
        return self.told[-1].error

    def synchronised(self, at: datetime) -> None:
        sync = self.settings().sync_path
        sync.mkdir(parents=True, exist_ok=True)
        save_floors(sync / FILE_NAME, Floors(scope="any", trusted_at=at))

    def admits(self, clock: FloorClock, access: Access) -> Reason | None:
        gallery = one(access)
        found: Admission = admission(self.settings(), gallery, time_known(clock, self.settings))
        return found.objection(gallery.subjects[0], clock.now())


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


EXPIRED_AT = START - 115 * MINUTE


@pytest.mark.parametrize("behind", ["closed", "open"])
@pytest.mark.parametrize("known_by", ["a synchronisation", "a command", "what the clock showed"])
def test_a_command_that_has_expired_is_not_done_when_the_clock_is_set_back(
    door: Door, behind: str, known_by: str
):
    door.behind = behind
    clock = door.start(START)
    match known_by:
        case "a synchronisation":
            door.synchronised(START)
            (door.settings().state_dir / TIME_FILE).unlink()
        case "a command":
            assert door.ask("t-0", START + MINUTE) is None
        case _:
            clock.save()
    clock = door.start(START - 120 * MINUTE)
    assert door.ask("t-1", EXPIRED_AT) == "it has expired"
    assert "t-1" not in door.done
    assert clock.behind


def test_a_command_is_not_done_either_while_the_door_runs_and_the_clock_is_set_back(door: Door):
    clock = door.start(START)
    door.wall.shift = -120 * MINUTE
    clock.tick()
    assert door.ask("t-1", EXPIRED_AT) == "it has expired"
    assert door.ask("t-2", START + MINUTE) is None, "it is known by the monotonic clock what time it is"
    assert door.done == ["t-2"]


def test_while_the_time_is_not_known_nothing_is_changed_but_where_the_setting_says_so(door: Door):
    door.start(START).save()
    door.start(START - 120 * MINUTE)
    assert "the clock is behind a time that was known" in (door.ask("t-1", START + MINUTE) or "")
    assert door.ask("t-2", START + MINUTE, "subjects") is None, "a look changes nothing"
    door.behind = "open"
    assert door.ask("t-3", START + MINUTE) is None
    assert door.done == ["t-2", "t-3"]


WINDOW = Access(windows=(Window.parse("mon-sun 00:00-24:00"),))


def test_below_the_floor_nothing_expires_early_and_nothing_stale_is_believed(door: Door):
    door.start(START).save()
    clock = door.start(BUILT_AT)
    assert door.admits(clock, Access()) is None
    assert door.admits(clock, Access(not_after=START - MINUTE)) == Reason.EXPIRED
    assert door.admits(clock, Access(not_after=START + MINUTE)) is None
    assert door.admits(clock, Access(not_before=START + MINUTE)) == Reason.EXPIRED
    assert door.admits(clock, Access(not_before=START - MINUTE)) is None
    assert door.admits(clock, WINDOW) == Reason.OUTSIDE_WINDOW, "nobody knows the hour"
    door.behind = "open"
    assert door.admits(clock, WINDOW) is None
    door.behind = "closed"
    door.wall.shift = timedelta(0)
    clock.tick()
    assert door.admits(clock, WINDOW) is None


def test_a_synchronisation_that_ends_raises_the_floor_of_a_door_that_runs(door: Door):
    clock = door.start(START)
    door.synchronised(START + 60 * MINUTE)
    follow_sync(clock, door.settings())
    assert clock.now() == START + 60 * MINUTE


def test_no_synchronisation_is_done_below_what_the_door_has_known(door: Door):
    """Also by what it has only seen: without a synchronisation before, and over a restart."""
    door.start(START).save()
    (door.directory / "root.json").write_text("{}")
    write_key(door.directory / "key", new_key())
    sync = f'url = "http://127.0.0.1:9"\ntrusted_root = "{door.directory}/root.json"'
    config = write_config(
        door.directory,
        f'[sync]\n{sync}\nsealing_key = "{door.directory}/key"',
        state_dir=door.directory / "state",
    )
    reasons = []
    for at in (START - 120 * MINUTE, START):
        outcome, _ = synchronise(load(config), SteppedClock(shift=at - START))
        reasons.append(outcome.reason)
    assert reasons[0] == "clock"
    assert reasons[1] != "clock"
