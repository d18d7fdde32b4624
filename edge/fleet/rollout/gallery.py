"""Ask doors over MQTT to fetch a gallery that was published, and see which have it by what they report.

What they report is believed as far as the broker lets others write there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from pydantic import ValidationError

from edge.core.clock import Clock
from edge.core.download import Progress
from edge.core.pacing import TokenBucket
from edge.fleet.rollout.listen import QUIET_S, check_accepted, gathered, hear_kept, of_devices, site_listener
from edge.mqtt.broker import Broker
from edge.mqtt.contract.messages import GalleryDesiredPayload, GalleryReportedPayload
from edge.mqtt.contract.topics import GALLERY_REPORTED, STATUS, Topics
from edge.mqtt.subscriber import Listener, Message

NUDGES_PER_S = 50
"""Doors asked in a second: what is published is fetched from one server or one cache, by all of them."""

REMOVALS_PER_S = 500
"""The same where somebody was taken out. That is small, and must be quick: 10,000 doors in 20 s."""

ASK_AGAIN_S = 20.0
"""Before a door that looked and found an older version is asked again: a cache may have shown it that."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A version that was published for a scope; `candidate`: to be switched to, 0: nothing any more.

    `removal`: it is enough that a door has removed who is no longer in it, whatever embedder the door has.
    """

    version: int
    candidate: bool = False
    removal: bool = False


@dataclass(slots=True)
class DoorSync:
    """One device as it shows itself; `fresh`: it has synchronised since we came."""

    online: bool = False
    report: GalleryReportedPayload | None = None
    fresh: bool = False
    before: datetime | None = None
    """When it had synchronised when we came."""


def watched(site: str, *devices: str) -> tuple[str, ...]:
    """Return the topics that tell which galleries the doors of a site have, and `devices` by name."""
    return of_devices((STATUS, GALLERY_REPORTED), site, devices)


@dataclass(slots=True)
class Arrival:
    """How far what is `wanted`, by scope, has come; `named`: only these devices count, none named: all."""

    wanted: Mapping[str, Wanted]
    named: tuple[str, ...] = ()
    doors: dict[str, DoorSync] = field(default_factory=dict)

    def hear(self, topic: str, payload: bytes, *, retained: bool) -> None:
        """Take a message of `watched`; one that cannot be read is passed over."""
        _, _, _, name, leaf = topic.split("/", 4)
        door = self.doors.setdefault(name, DoorSync())
        if leaf == "status":
            door.online = payload == b"online"
            return
        try:
            door.report = GalleryReportedPayload.model_validate_json(payload, extra="ignore")
        except ValidationError:
            return
        if retained:
            door.before = door.report.synchronised_at
        else:
            door.fresh = door.report.synchronised_at != door.before

    def concerned(self) -> dict[str, DoorSync]:
        """Return the doors that are waited for: those named, or all that serve one of the scopes."""
        if self.named:
            return {name: self.doors.get(name, DoorSync()) for name in self.named}
        return {
            name: door
            for name, door in sorted(self.doors.items())
            if door.report is not None and door.report.scope in self.wanted
        }

    def version_for(self, door: DoorSync) -> int:
        """Return the version to ask a door for; 0: whatever there is."""
        wanted = self.wanted.get(door.report.scope or "") if door.report else None
        return 0 if wanted is None or wanted.candidate else wanted.version

    def came_to(self, door: DoorSync) -> tuple[str, str]:
        """Return how it stands with a door, `has it` where it is done, and why."""
        report = door.report
        if report is None:
            return ("waiting" if door.online else "offline"), "it has not reported a gallery"
        wanted = self.wanted.get(report.scope or "")
        if wanted is None:
            return "another scope", f"it serves scope {report.scope}"
        if self._has(door, report, wanted):
            return "has it", ""
        if wanted.removal and self._has_removed(door, report, wanted):
            return "has it", "who was removed, not the gallery: that is of an embedder that it cannot use"
        if not door.online:
            return "offline", "it follows when it is back"
        if door.fresh and report.error:
            return "refused", report.error
        has = f"version {report.published}" if report.published else "another gallery"
        return "waiting", f"it has {has}"

    @staticmethod
    def _has_removed(door: DoorSync, report: GalleryReportedPayload, wanted: Wanted) -> bool:
        if report.rights is None or wanted.candidate:
            return report.rights is not None and door.fresh
        return report.rights == wanted.version or (door.fresh and report.rights > wanted.version)

    def _has(self, door: DoorSync, report: GalleryReportedPayload, wanted: Wanted) -> bool:
        if wanted.candidate:
            if not wanted.version:
                return report.candidate is None
            return report.candidate is not None and report.candidate.published == wanted.version
        newer = door.fresh and report.status != "refused" and (report.published or 0) > wanted.version
        return report.published == wanted.version or newer


def as_reported(broker: Broker, site: str, wanted: Mapping[str, Wanted], clock: Clock) -> Arrival:
    """Return how the doors of a site stand by what they have reported, and ask them for nothing.

    Raises:
        LinkError: The broker cannot be reached, or refuses it.
    """
    arrival = Arrival(wanted)
    with site_listener(broker, watched(site)) as listener:
        hear_kept(listener, partial(_hear, arrival), clock)
    return arrival


def cannot_follow(
    broker: Broker, site: str, scope: str, model_id: str, clock: Clock
) -> tuple[dict[str, str], int]:
    """Return which doors of a scope could not use a gallery of this model by what they report, and why.

    Also returns how many doors of the scope have reported at all.

    Raises:
        LinkError: The broker cannot be reached, or refuses it.
    """
    arrival = as_reported(broker, site, {scope: Wanted(0)}, clock)
    doors, cannot = arrival.concerned(), {}
    for name, door in doors.items():
        assert door.report is not None
        if (why := _why_not(door.report, model_id)) is not None:
            cannot[name] = why
    return cannot, len(doors)


def _why_not(report: GalleryReportedPayload, model_id: str) -> str | None:
    """Return why a door could not use a gallery of a model, None where it could."""
    candidate = report.candidate.model_id if report.candidate else None
    if model_id in (report.model_id, candidate, *(report.embedders or ())):
        return None
    if report.embedders is None:
        return "it does not say that it can (an earlier release, and no candidate)"
    return f"it embeds with {' or '.join(report.embedders)}"


def nudge_doors(
    broker: Broker,
    site: str,
    wanted: Mapping[str, Wanted],
    devices: Sequence[str],
    *,
    wait_s: float,
    clock: Clock,
    told: Progress,
) -> Arrival:
    """Ask the doors that serve these scopes, or those named, to synchronise; wait until they have it.

    Doors that are online are asked `NUDGES_PER_S` or `REMOVALS_PER_S` a second. Waits `wait_s` at the most
    after the last was asked. `told` hears how many doors have it, of how many.

    Raises:
        LinkError: The broker cannot be reached, or refuses it.
        ConfigError: A device is badly named.
    """
    for name in devices:
        Topics(site, name)
    per_s = REMOVALS_PER_S if all(each.removal for each in wanted.values()) else NUDGES_PER_S
    pace = TokenBucket(per_s, per_s, clock.monotonic)
    arrival, asked_s = Arrival(wanted, tuple(devices)), dict[str, float]()
    with site_listener(broker, watched(site, *devices)) as listener:
        last_s = clock.monotonic()
        known_s = last_s + QUIET_S
        while (now_s := clock.monotonic()) < max(last_s + wait_s, last_s + QUIET_S, known_s):
            all_known = now_s >= known_s
            doors = arrival.concerned()
            states = {name: arrival.came_to(door)[0] for name, door in doors.items()}
            for name, door in doors.items():
                if name in asked_s:
                    old = states[name] == "waiting" and door.fresh and now_s - asked_s[name] >= ASK_AGAIN_S
                    if not old:
                        continue
                elif door.report is None and not all_known:
                    continue
                if door.online and not pace.take():
                    break
                last_s = last_s if name in asked_s else now_s
                asked_s[name] = now_s
                _ask(listener, Topics(site, name).gallery_desired, arrival.version_for(door))
            if all_known:
                told("doors", list(states.values()).count("has it"), len(states))
                if "waiting" not in states.values() and asked_s.keys() >= doors.keys():
                    break
            for message in gathered(listener, clock):
                _hear(arrival, message)
                if message.retained:
                    known_s = clock.monotonic() + QUIET_S
            check_accepted(listener)
        listener.flush()
        check_accepted(listener)
    return arrival


def _ask(listener: Listener, topic: str, version: int) -> None:
    desired = GalleryDesiredPayload(version=version).model_dump_json(by_alias=True).encode()
    listener.publish(topic, desired, retain=version > 0)  # a door that is away is asked when it is back


def _hear(arrival: Arrival, message: Message) -> None:
    arrival.hear(message.topic, message.payload, retained=message.retained)
