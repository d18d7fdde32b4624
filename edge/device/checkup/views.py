"""What each camera shows: whether it delivers, its light, its mounting, and how far it sees.

Where the daemon runs, cameras are its own: it is asked, and none is opened.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

import cv2
import numpy as np

from edge.camera.sources import frames_of
from edge.core import files
from edge.core.errors import CameraError
from edge.core.types import Image
from edge.device.assembly.mounting_look import MountingLook
from edge.device.assembly.recognizer import build_camera
from edge.device.checkup.finding import Checkup, Finding, green, red, yellow
from edge.device.settings.tables import CameraSettings
from edge.face.lighting import SHADOW_LIFT, lift_of_scene
from edge.recognition.enrolment.showing import sure_by_turn

WATCHED_S, MOST_FRAMES = 2.0, 60
"""How long each camera is watched, and after how many frames that ends sooner: clips may be faster."""

LOOKED_AT = 4
"""How many of the frames are kept, spread over them: a face is looked for there in four directions."""

FACE_M = 0.15
"""Width of a face. Source: the table of deploy/README.md, as the sizes below."""

WIDTHS_PX = (1280.0, 1920.0, 3840.0)
ALL_FOUND_PX, MOST_FOUND_PX = (32.0, 48.0, 80.0), (24.0, 48.0, 48.0)
"""Widths of frames, and of faces found in them within half a second: 19 of 20, and nine of ten.

Source: `edge bench range`, models/MEASURED.md. Of narrower frames those of the narrowest are taken.
"""

NEAR_M = 2.0
"""A camera that sees less far has little time for who walks up to it."""

FEW_FPS = 5.0
"""Frames a second at which who walks across 2 m may not be tracked. Source: edge/README.md."""

BLACK_BELOW, PLAIN_BELOW = 10.0, 3.0
"""Median luma of a black picture, and standard deviation of the luma of one that shows nothing, in levels."""

DARK_FACTOR = 8.0
"""How far the levels of a scene are spread from which on few faces are named.

Source: models/MEASURED.md: at gain .25 (4 times) faces are named as by day, at .12 (8 times) hardly any.
"""

WHITE_FROM, WHITE_SHARE = 250, 0.4
"""Luma of what is overexposed, and the share of a picture of which it is too much."""

DRAWN, PLACE = (80, 220, 80), (60, 200, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX

PLACEMENT = (
    "Hang it 1.5 to 2 m high, before whoever comes, and tilt it by 15 degrees at most.",
    "Light falls on faces from the camera's side; no lamp, window or sky stands behind them.",
)
"""What is written into every picture. Source: the quality gate: yaw, tilt, exposure."""


def range_m(width_px: float, face_px: float, lens_deg: float) -> float:
    """Return how far a face is that is `face_px` wide in a frame `width_px` wide, in metres."""
    return FACE_M * width_px / (2 * face_px * math.tan(math.radians(lens_deg / 2)))


def ranges_m(width_px: float, lens_deg: float) -> tuple[float, float]:
    """Return up to where all faces are found in frames of this width, and nine of ten, in metres."""
    all_px, most_px = (
        float(np.interp(width_px, WIDTHS_PX, sizes)) for sizes in (ALL_FOUND_PX, MOST_FOUND_PX)
    )
    return range_m(width_px, all_px, lens_deg), range_m(width_px, most_px, lens_deg)


def cameras(checkup: Checkup) -> Iterator[Finding]:
    """Say of each camera whether it delivers, and where it can be opened, what it shows."""
    for name in checkup.settings.cameras:
        if checkup.running:
            yield _of_daemon(name, checkup)
        else:
            yield from _opened(name, checkup)


def _of_daemon(name: str, checkup: Checkup) -> Finding:
    about, health = f"camera {name}", checkup.health
    if health is None:
        return yellow(
            about,
            "is the running daemon's, which leaves no health here",
            f"read camera/{name}/info at the broker, or stop the daemon and run `edge doctor` again",
        )
    age_s, fps = health.frame_age_s.get(name), health.fps.get(name, 0.0)
    if age_s is None or age_s > checkup.settings.capture.stall_s:
        since = "no frame since the start" if age_s is None else f"no frame for {age_s:.0f} s"
        return checkup.missing(about, f"the daemon had {since}", f"camera/{name}/info and the log say why")
    found = health.cameras[name].problems if name in health.cameras else ()
    if found:
        return red(
            about, f"the daemon names {', '.join(found)}", health.remedies.get(found[0], "see its log")
        )
    width = checkup.settings.cameras[name].width
    told = f"the daemon looks at {fps:g} frames/s of it, the newest {age_s:.1f} s old"
    if width is not None:
        told += f"; {_range_told(width, checkup)}"
    return green(about, f"{told}; light and mounting are looked at while the daemon is stopped")


@dataclass(slots=True, eq=False)
class View:
    """What a camera showed: how many frames in how many seconds, whether any differed, and some of them."""

    live: bool
    frames: int = 0
    lasted_s: float = 0.0
    moves: bool = False
    kept: list[Image] = field(default_factory=list)

    def add(self, image: Image, at_s: float) -> None:
        """Take a frame, BGR, that came `at_s` seconds after the first."""
        if self.kept:
            self.moves |= image.shape != self.kept[-1].shape or bool((image != self.kept[-1]).any())
        if at_s >= len(self.kept) * WATCHED_S / LOOKED_AT or not self.kept:
            self.kept.append(image.copy())
        self.frames, self.lasted_s = self.frames + 1, at_s

    @property
    def fps(self) -> float:
        """Frames a second; 0 where a single one came."""
        return (self.frames - 1) / self.lasted_s if self.lasted_s > 0 else 0.0


def _opened(name: str, checkup: Checkup) -> Iterator[Finding]:
    about, values = f"camera {name}", checkup.settings.cameras[name]
    try:
        view = _watch(name, checkup)
    except CameraError as error:
        yield red(about, str(error), "see that it is plugged in, and that no other program has it")
        return
    height, width = view.kept[-1].shape[:2]
    across = height if values.rotate in (90, 270) else width
    far = _range_told(across, checkup)
    yield _of_rate(about, view, f"{width}x{height} at {view.fps:.0f} frames/s; {far}", across, checkup)
    yield _of_light(f"{about}: light", view)
    look = _of_mounting(name, values, view, checkup)
    if look is not None:
        yield look
    if checkup.pictures is not None:
        yield _picture(name, view.kept[-1], across, checkup)


def _watch(name: str, checkup: Checkup) -> View:
    camera, clock = build_camera(name, checkup.settings, checkup.clock), checkup.clock
    view, begun_s = View(camera.live), None
    with closing(frames_of(camera)) as frames:
        for frame in frames:
            begun_s = clock.monotonic() if begun_s is None else begun_s
            view.add(frame.image, clock.monotonic() - begun_s)
            if view.lasted_s >= WATCHED_S or view.frames >= MOST_FRAMES:
                break
    if not view.frames:
        raise CameraError("it ended before a frame came")
    return view


def _range_told(across_px: int, checkup: Checkup) -> str:
    every, most = ranges_m(across_px, checkup.lens_deg)
    return (
        f"finds every face up to {every:.1f} m, nine of ten up to {most:.1f} m ({checkup.lens_deg:g} degrees)"
    )


def _of_rate(about: str, view: View, told: str, across_px: int, checkup: Checkup) -> Finding:
    if view.live and view.frames > 2 and not view.moves:
        return red(about, f"{told}; every frame is the same", "restart the camera: its picture stands still")
    if view.fps <= FEW_FPS:
        mend = f"raise fps above {FEW_FPS:g}: who walks by may not be followed"
        return yellow(about, told, mend)
    if ranges_m(across_px, checkup.lens_deg)[1] < NEAR_M:
        return yellow(about, told, "set a larger width and height, or take a lens with a narrower view")
    return green(about, told)


def _of_light(about: str, view: View) -> Finding:
    grey = cv2.cvtColor(view.kept[-1], cv2.COLOR_BGR2GRAY)
    middle, spread = float(np.median(grey)), float(grey.std())
    if middle < BLACK_BELOW and spread < BLACK_BELOW:
        return red(
            about,
            f"the picture is black (median luma {middle:.0f} of 255)",
            "take off its cap; give it light",
        )
    if spread < PLAIN_BELOW:
        return red(about, "the picture shows one plain surface", "see what hangs or sticks before the lens")
    lift = lift_of_scene(view.kept[-1], 4)
    if lift is not None and lift is not SHADOW_LIFT and lift.factor >= DARK_FACTOR:
        told = f"dark: its levels have to be spread {lift.factor:.0f} times"
        return yellow(about, told, "give the door a lamp: few faces are named in this light")
    if float((grey >= WHITE_FROM).mean()) > WHITE_SHARE:
        return yellow(about, "overexposed", "turn it away from the sky or lamp, or lower its exposure")
    return green(about, f"bright enough (median luma {middle:.0f} of 255)")


def _of_mounting(name: str, values: CameraSettings, view: View, checkup: Checkup) -> Finding | None:
    """Say which way up the camera shows a face; None where nothing can say."""
    if checkup.recognizer is None:
        return None
    best: dict[int, float] = {}
    for image in view.kept:
        sure = sure_by_turn(image, checkup.recognizer)
        best = max(best, sure, key=lambda each: max(each.values(), default=0.0))
    look, about = MountingLook(name, best, values.rotate, values.flip), f"camera {name}: mounting"
    if look.problem is not None:
        told, _, remedy = look.problem.rpartition("; ")
        return red(about, told, remedy)
    if look.best is None:
        return green(about, "nobody stood before it: `edge check --look` tells which way up it shows a face")
    return green(about, str(look))


def _picture(name: str, image: Image, across_px: int, checkup: Checkup) -> Finding:
    """Write what the camera shows, with the faces in it, the sizes of faces by distance, and advice."""
    assert checkup.pictures is not None
    path, shown = checkup.pictures / f"{name}.png", image.copy()
    every, most = ranges_m(across_px, checkup.lens_deg)
    faces = checkup.recognizer.detect(image) if checkup.recognizer is not None else []
    for face in faces:
        (x1, y1), (x2, y2) = face.box[:2].round().astype(int), face.box[2:].round().astype(int)
        cv2.rectangle(shown, (int(x1), int(y1)), (int(x2), int(y2)), DRAWN, 2)
        away = range_m(across_px, float(x2 - x1), checkup.lens_deg)
        _write(shown, f"{x2 - x1} px, {away:.1f} m away", (int(x1), int(y1) - 6), DRAWN)
    x, bottom = 10, shown.shape[0] - 10
    for distance, share in ((1.0, ""), (every, ": all"), (most, ": nine of ten")):
        side, label = round(range_m(across_px, 1.0, checkup.lens_deg) / distance), f"{distance:.1f} m{share}"
        cv2.rectangle(shown, (x, bottom - side), (x + side, bottom), PLACE, 1)
        x += max(side, _write(shown, label, (x, bottom - side - 4), PLACE)) + 8
    lines = (
        f"{name}: {image.shape[1]}x{image.shape[0]}, {_range_told(across_px, checkup)}",
        "Boxes below left: how large a face is at each distance, and which share of them is found there.",
        *PLACEMENT,
    )
    high = _line_height(shown)
    shown = np.asarray(
        cv2.copyMakeBorder(shown, 0, high * (len(lines) + 1), 0, 0, cv2.BORDER_CONSTANT), np.uint8
    )
    for number, line in enumerate(lines):
        _write(shown, line, (10, image.shape[0] + high * (number + 1)), (255, 255, 255))
    ok, png = cv2.imencode(".png", shown)
    assert ok
    files.make_private_directory(checkup.pictures)
    files.write_whole(path, png.tobytes())
    return green(f"camera {name}: picture", f"{path}: {len(faces)} face(s); it shows whoever stood there")


def _scale(image: Image) -> float:
    return float(max(0.35, image.shape[1] / 2100))


def _line_height(image: Image) -> int:
    return round(36 * _scale(image))


def _write(image: Image, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> int:
    """Write a line; returns its width in pixels."""
    scale, y = _scale(image), max(at[1], _line_height(image))
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    cv2.rectangle(image, (at[0], y - height - 3), (at[0] + width, y + below), (30, 30, 30), -1)
    cv2.putText(image, text, (at[0], y), FONT, scale, colour, 1, cv2.LINE_AA)
    return int(width)
