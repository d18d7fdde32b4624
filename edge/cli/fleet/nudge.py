"""What `--nudge` does: ask doors to synchronise, wait until they have what was published, say who has not."""

import queue
from collections.abc import Mapping, Sequence

from rich.console import Console

from edge.cli.fleet.site_listener import QUIET_S, check_accepted, site_listener
from edge.cli.output import Listing, progress
from edge.core.clock import SystemClock
from edge.core.text import printable
from edge.device.settings.load import Settings
from edge.fleet.rollout.gallery import Arrival, Wanted, watched
from edge.mqtt.contract.messages import GalleryDesiredPayload
from edge.mqtt.contract.topics import Topics
from edge.mqtt.subscriber import Listener

__all__ = ("Wanted", "nudge_doors")

PAUSE_S = 0.25


def nudge_doors(
    settings: Settings, wanted: Mapping[str, Wanted], devices: Sequence[str], wait_s: float
) -> int:
    """Nudge the doors that serve these scopes, or those named; returns the exit code.

    Raises:
        LinkError: The broker cannot be reached, or refuses it.
        ConfigError: A device is badly named.
    """
    for name in devices:
        Topics(settings.site, name)
    clock = SystemClock()
    arrival, asked = Arrival(wanted, tuple(devices)), set[str]()
    with site_listener(settings.mqtt, watched(settings.site)) as listener, progress("nudge") as told:
        began_s = clock.monotonic()
        while (passed_s := clock.monotonic() - began_s) < max(wait_s, QUIET_S):
            all_known = passed_s >= QUIET_S
            doors = arrival.concerned()
            for name, door in doors.items():
                if name not in asked and (door.report is not None or all_known):
                    asked.add(name)
                    _ask(listener, Topics(settings.site, name).gallery_desired, arrival.version_for(door))
            states = [arrival.came_to(door)[0] for door in doors.values()]
            if all_known:
                told("doors", states.count("has it"), len(states))
                if "waiting" not in states:
                    break
            _hear(listener, arrival)
            check_accepted(listener)
        listener.flush()
        check_accepted(listener)
    return _told(arrival)


def _ask(listener: Listener, topic: str, version: int) -> None:
    desired = GalleryDesiredPayload(version=version).model_dump_json(by_alias=True).encode()
    listener.publish(topic, desired, retain=version > 0)  # a door that is away is asked when it is back


def _hear(listener: Listener, arrival: Arrival) -> None:
    try:
        message = listener.messages.get(timeout=PAUSE_S)
    except queue.Empty:
        return
    arrival.hear(message.topic, message.payload, retained=message.retained)


def _told(arrival: Arrival) -> int:
    """Print which doors have it; returns the exit code."""
    doors = arrival.concerned()
    scopes = ", ".join(arrival.wanted)
    if not doors:
        print(f"no door has reported at this broker that it serves {scopes}; name it with --device")
        return 1
    states = {name: arrival.came_to(door) for name, door in doors.items()}
    if Console().is_terminal:
        table = Listing("door", "published", "why", copied=("door",), title=scopes)
        for name, (state, why) in states.items():
            table.add_row(name, state, printable(why))
        table.print()
    else:
        for name, (state, why) in states.items():
            print(printable(f"{name}: {state}{f': {why}' if why else ''}"))
    without = [name for name, (state, _) in states.items() if state != "has it"]
    if without:
        print(printable(f"{len(without)} of {len(states)} door(s) have not got it: {', '.join(without)}"))
    return 1 if without else 0
