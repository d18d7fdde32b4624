"""Whether the door works under a configuration that was just pushed. Pure: told what is seen, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SETTLE = 0.5
"""Share of the time allowed that has to pass before a configuration is kept: threads are late after 10 s."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How the door does: frames looked at by camera, who delivers, the broker, threads that are late."""

    frames: Mapping[str, int]
    delivering: frozenset[str]
    connected: bool
    late: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Probation:
    """Begins at `began_s`, monotonic, with what was seen until then, and takes up to `limit_s`."""

    began_s: float
    limit_s: float
    before: Seen

    def objection(self, seen: Seen) -> str | None:
        """Return what does not work that worked before, None where nothing does."""
        still = sorted(
            camera
            for camera in self.before.delivering
            if seen.frames.get(camera, 0) <= self.before.frames.get(camera, 0)
        )
        if still:
            return f"no frame of {', '.join(still)} was looked at"
        if self.before.connected and not seen.connected:
            return "the connection to the broker is lost"
        new = sorted(set(seen.late) - set(self.before.late))
        return f"threads are late: {', '.join(new)}" if new else None

    def over(self, now_s: float, seen: Seen) -> bool:
        """Return whether it has ended: well, or because the time is up."""
        spent_s = now_s - self.began_s
        if spent_s >= self.limit_s:
            return True
        return spent_s >= SETTLE * self.limit_s and self.objection(seen) is None
