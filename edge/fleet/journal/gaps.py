"""Gaps: which numbers of a device's events have not come. Tells a gap late, and that it was filled.

A device numbers its events without gaps, and drops some only when its outbox overflows. They may come out of
order: each camera has a topic of its own, and what was kept back comes later.
"""

from dataclasses import dataclass, field

GRACE_S = 3.0
"""How long a number may be late before it counts as missing."""

BEGIN_S = 60.0
"""How long after a device's first event earlier ones may come: several consumers overtake one another."""

MAX_GAPS = 1000
"""Gaps remembered per device; of more the oldest can no longer be said to be filled."""

MAX_HOLES = 20
"""Missing numbers, or runs of them, that a line names; the others are counted."""

JUMP = 1_000_000
"""No gap: a device that could not read its outbox when it started goes on far above its old numbers."""


@dataclass(slots=True)
class _Gap:
    first: int
    last: int
    since_s: float
    holes: list[tuple[int, int]]
    told: bool = False
    jump: bool = False
    """Most of what is in it never was. What comes of it goes on from its ends without gaps."""
    before: bool = False
    """It lies before the first event that came: nobody knows whether anything of it ever was."""

    def fill(self, seq: int) -> bool:
        """Take `seq` out of what is missing; returns whether it was missing."""
        for place, (low, high) in enumerate(self.holes):
            if low <= seq <= high:
                self.holes[place : place + 1] = [
                    hole for hole in ((low, seq - 1), (seq + 1, high)) if hole[0] <= hole[1]
                ]
                return True
        return False


@dataclass(slots=True)
class _Device:
    first: int
    highest: int
    since_s: float
    gaps: list[_Gap] = field(default_factory=list)


class Gaps:
    """The numbers of many devices. `now_s` is monotonic seconds."""

    def __init__(self) -> None:
        self._devices: dict[str, _Device] = {}
        self.filled = 0
        """Gaps that were told and have been filled."""

    def saw(self, source: str, seq: int, now_s: float) -> str | None:
        """Note that event `seq` of `source` came for the first time; returns what is to be told, or None.

        A number below the first one seen is late, not the end of a gap: nobody knows what came before.
        """
        device = self._devices.get(source)
        if device is None:
            self._devices[source] = _Device(seq, seq, now_s)
            return None
        if seq > device.highest:
            jump = seq > device.highest + JUMP
            if seq > device.highest + 1:
                hole = (device.highest + 1, seq - 1)
                device.gaps.append(_Gap(*hole, now_s, [hole], told=jump, jump=jump))
                del device.gaps[:-MAX_GAPS]
            device.highest = seq
            if jump:
                return f"{source}: numbers go on at {seq}: the device could not read its outbox at its start"
            return None
        if seq < device.first:
            if now_s - device.since_s < BEGIN_S and seq + 1 < device.first:
                hole = (seq + 1, device.first - 1)
                device.gaps.append(_Gap(*hole, now_s, [hole], told=True, before=True))
                del device.gaps[:-MAX_GAPS]
            device.first = seq
            return None
        for place, gap in enumerate(device.gaps):
            if gap.jump and gap.first <= seq <= gap.last:
                device.gaps[place : place + 1] = _split(gap, seq, now_s)
                del device.gaps[:-MAX_GAPS]
                return None
            if gap.fill(seq):
                return self._filled(source, device, gap)
        self._devices[source] = _Device(seq, seq, now_s)
        return f"{source}: numbers begin again at {seq}: the device has a new outbox"

    def news(self, now_s: float) -> list[str]:
        """Return what is to be told about gaps that have lasted longer than late events do."""
        told = []
        for source, device in self._devices.items():
            for gap in device.gaps:
                if not gap.told and now_s - gap.since_s >= GRACE_S:
                    gap.told = True
                    told.append(f"{source}: gap: {_numbers(gap.holes)} missing")
        return told

    def missing(self) -> dict[str, list[tuple[int, int]]]:
        """Return what is missing now by device, as ranges with both ends."""
        found = {
            source: [hole for gap in device.gaps if not (gap.jump or gap.before) for hole in gap.holes]
            for source, device in self._devices.items()
        }
        return {source: holes for source, holes in found.items() if holes}

    def _filled(self, source: str, device: _Device, gap: _Gap) -> str | None:
        if gap.holes:
            return None
        device.gaps.remove(gap)
        if gap.before or not gap.told:
            return None
        self.filled += 1
        return f"{source}: gap filled: {_numbers([(gap.first, gap.last)])} came late"


def _split(jump: _Gap, seq: int, now_s: float) -> list[_Gap]:
    """Return what is missing from a number to the end of a jump it is nearer to, and the jump left over."""
    below, above = (jump.first, seq - 1), (seq + 1, jump.last)
    old = seq - jump.first <= jump.last - seq
    found = []
    for hole, left_over in ((below, not old), (above, old)):
        still = left_over or hole[1] - hole[0] >= JUMP
        if hole[0] <= hole[1]:
            found.append(_Gap(*hole, jump.since_s if still else now_s, [hole], told=still, jump=still))
    return found


def _numbers(holes: list[tuple[int, int]]) -> str:
    told = ", ".join(f"#{low}" if low == high else f"#{low}-{high}" for low, high in holes[:MAX_HOLES])
    return told if len(holes) <= MAX_HOLES else f"{told} and {len(holes) - MAX_HOLES} more"
