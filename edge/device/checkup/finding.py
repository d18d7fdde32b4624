"""What a check says, and what the checks of one door share: its settings, and how its daemon does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from edge.core.clock import Clock, SystemClock
from edge.core.errors import EdgeError
from edge.core.files import daemon_runs
from edge.device.assembly.recognizer import PHOTO_SIDE_PX, build_recognizer
from edge.device.checkup.left_health import left_health
from edge.device.settings.load import Settings
from edge.mqtt.contract.messages import HealthPayload
from edge.recognition.recognizer import Recognizer

LENS_DEG = 78.0
"""Horizontal view of a usual camera's lens."""


STARTED_S, AGAIN = 55.0, "run this again in a minute: health is told once a minute"
"""Uptime in seconds up to which what a daemon lacks may still come, and what to do then."""


class Light(StrEnum):
    """How it stands: all right; works, but somebody should know; keeps the door from its work."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it stands, what was seen, and what to do about it.

    Holds no label, no embedding, no subject's id and no secret.
    """

    about: str
    light: Light
    told: str
    remedy: str | None = None


def green(about: str, told: str) -> Finding:
    """Return the finding that all is right."""
    return Finding(about, Light.GREEN, told)


def yellow(about: str, told: str, remedy: str) -> Finding:
    """Return the finding that somebody should know something."""
    return Finding(about, Light.YELLOW, told, remedy)


def red(about: str, told: str, remedy: str) -> Finding:
    """Return the finding that something keeps the door from its work."""
    return Finding(about, Light.RED, told, remedy)


class Checkup:
    """One door that is looked over. Reads its state and changes none of it.

    `lens_deg` is the horizontal view of its cameras' lenses. Annotated pictures go to `pictures`; None: none
    are made. `running` says whether its daemon runs, `health` is what that said last: None where it does not
    run, or leaves nothing here.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        config_file: Path | None = None,
        lens_deg: float = LENS_DEG,
        pictures: Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.config_file = config_file
        self.lens_deg = lens_deg
        self.pictures = pictures
        self.clock = clock or SystemClock()
        self.running = daemon_runs(settings.state_dir)
        self.health: HealthPayload | None = left_health(settings) if self.running else None

    def missing(self, about: str, told: str, remedy: str) -> Finding:
        """Return the finding that the daemon had not something when it spoke last, which may be its start."""
        if self.health is not None and self.health.uptime_s < STARTED_S:
            return yellow(about, f"{told}, {self.health.uptime_s:.0f} s after its start", AGAIN)
        return red(about, told, remedy)

    @cached_property
    def recognizer(self) -> Recognizer | None:
        """Models and gallery as for photos; None where they cannot be used, which other checks tell."""
        try:
            return build_recognizer(self.settings, side_px=PHOTO_SIDE_PX)
        except EdgeError:
            return None


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at: its name, what of it, how, and what to do where that cannot be looked at.

    `look` may raise an EdgeError or OSError: what it says is then a red finding.
    """

    name: str
    looks_at: str
    look: Callable[[Checkup], Iterable[Finding]]
    remedy: str
