"""Look at a face before a camera, and say which way up the camera shows it: its setting `rotate`."""

from contextlib import closing
from dataclasses import dataclass

from edge.camera.sources import frames_of
from edge.core.clock import Clock, SystemClock
from edge.device.assembly.recognizer import build_camera
from edge.device.settings.load import Settings
from edge.recognition.enrolment.showing import sure_by_turn
from edge.recognition.recognizer import Recognizer

LOOK_S = 10.0
"""How long a face is waited for before each camera."""

CERTAIN = 0.9
"""Recognisability from which on no better look is waited for."""

LEAST = 0.3
"""The same that a face has to have one way round, to say anything: that of a photo to be enrolled."""

CLEARLY = 10.0
"""How many times as sure the embedder has to be of a face that is turned."""


@dataclass(frozen=True, slots=True)
class MountingLook:
    """How sure the embedder was of a face before a camera, by how far the frame was turned clockwise.

    `sure` holds recognisabilities in [0, 1] by degrees, `rotate` and `flip` are the camera's settings.
    """

    camera: str
    sure: dict[int, float]
    rotate: int
    flip: bool

    @property
    def best(self) -> int | None:
        """The turn in which the embedder is surest; None where no face was seen well enough."""
        found = max(self.sure, key=lambda degrees: self.sure[degrees], default=None)
        return found if found is not None and self.sure[found] >= LEAST else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the setting `rotate`, and what it should be; None: nothing is known to be."""
        best = self.best
        if best in (None, 0) or self.sure[best] < CLEARLY * self.sure.get(0, 0.0):
            return None
        right = (self.rotate + (-best if self.flip else best)) % 360
        sure, now = self.sure[best], self.sure.get(0, 0.0)
        return (
            f"cameras.{self.camera}.rotate: faces stand upright with {right} and not with {self.rotate} "
            f"(recognisability {sure:.2f} against {now:.2f}); set rotate = {right}"
        )

    def __str__(self) -> str:
        if self.best is None:
            return f"no face was seen within {LOOK_S:.0f} s; somebody has to stand before it"
        told = ", ".join(f"{degrees} deg {sure:.2f}" for degrees, sure in sorted(self.sure.items()))
        return f"{'shows faces the wrong way' if self.problem else 'shows faces upright'} (turned by {told})"


def look_at(
    name: str, settings: Settings, recognizer: Recognizer, clock: Clock | None = None
) -> MountingLook:
    """Open a camera and look at a face in all four directions, until one is sure or LOOK_S have gone.

    Raises:
        CameraError: It cannot be opened or read.
    """
    clock = clock or SystemClock()
    camera, values = build_camera(name, settings, clock), settings.cameras[name]
    best: dict[int, float] = {}
    until_s = clock.monotonic() + LOOK_S
    with closing(frames_of(camera)) as frames:
        for frame in frames:
            sure = sure_by_turn(frame.image, recognizer)
            if max(sure.values(), default=0.0) > max(best.values(), default=0.0):
                best = sure
            if max(best.values(), default=0.0) >= CERTAIN or clock.monotonic() >= until_s:
                break
    return MountingLook(name, best, values.rotate, values.flip)
