"""What the demo plays and what a door must say about it.

Two cameras play clips as they are, three play what `stage` makes of them. 42 subjects are enrolled, one photo
each.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge.camera.clips import ReplayCamera
from edge.camera.photo import read_photo
from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import Image, Subject
from edge.lab.demo.media import ORL_SUBJECTS, orl_photo
from edge.lab.demo.stage import make_dark, make_far, make_pause, make_two

CAMERAS: dict[str, tuple[str | Callable[[Path, Path], None], ...]] = {
    "front": ("no_face.mp4", "noface_face.mov", "face_noface.mov", "no_face.mp4"),
    "side": ("no_face.mp4", "carphone_pristine.mp4", "no_face.mp4", "WolfgangLanger_Pexels.mp4"),
    "dark": (make_dark,),
    "two": (partial(make_pause, seconds=10), make_two),
    "far": (partial(make_pause, seconds=21), make_far),
}
"""Clips that each camera plays one after the other, at their own speed: fetched ones, or what makes one.

What is made begins when the others show little, so that two cores suffice.
"""

SHOWN = {
    "front": "an empty door, an enrolled man comes, stands and goes",
    "side": "an empty door, a stranger, an empty door, another stranger",
    "dark": "the man at night: an eighth of the light, and noise",
    "two": "the man and a stranger at once",
    "far": "the man walks past far away, his face 26 to 42 pixels wide in 1280x720",
}
"""What is to be seen before each camera."""

SUBJECTS = ORL_SUBJECTS + 2

Told = tuple[str, str, str]
"""Camera, event type, subject id or ''."""

EXPECTED: Counter[Told] = Counter(
    {
        ("front", "match", "p-man"): 1,
        ("front", "left", "p-man"): 1,
        ("side", "reject", ""): 2,
        ("side", "left", ""): 2,
        ("dark", "match", "p-man"): 1,
        ("dark", "left", "p-man"): 1,
        ("far", "match", "p-man"): 1,
        ("far", "left", "p-man"): 1,
        ("two", "match", "p-man"): 1,
        ("two", "left", "p-man"): 1,
        ("two", "reject", ""): 1,
        ("two", "left", ""): 1,
    }
)
"""One decision per visit, then one `left`; nothing for the clips without faces."""


@dataclass(frozen=True, slots=True, eq=False)
class Photo:
    """One still of somebody to enrol."""

    subject: Subject
    image: Image
    name: str


def photos(media: Path) -> Iterator[Photo]:
    """Yield the photos to enrol: the man, a woman of the group photo, and the 40 ORL subjects.

    Raises:
        MediaError: A photo cannot be read.
    """
    yield Photo(
        Subject("p-man", "Man in the clip", ("staff",)), _still(media / "single_face.mp4"), "single_face.mp4"
    )
    group = read_photo(media / "multi_face.jpg")
    yield Photo(Subject("p-colleague", "Colleague", ("staff",)), group[10:240, 170:350], "multi_face.jpg")
    for number in range(1, ORL_SUBJECTS + 1):
        path = orl_photo(media, number, 1)
        yield Photo(Subject(f"p-orl-{number:02}", f"ORL {number}", ("staff",)), read_photo(path), path.name)


def lay_out(media: Path, directory: Path, step: Progress) -> dict[str, Path]:
    """Make a folder per camera that plays its clips in order; returns them by camera.

    Raises:
        MediaError: A clip cannot be made.
    """
    folders = {}
    for done, (camera, clips) in enumerate(CAMERAS.items()):
        step(f"clips for camera {camera}", done, len(CAMERAS))
        folder = directory / camera
        folder.mkdir()
        for number, clip in enumerate(clips):
            if isinstance(clip, str):
                (folder / f"{number}-{clip}").symlink_to(media / clip)
            else:
                clip(media, folder / f"{number}.avi")
        folders[camera] = folder
    step("clips", len(CAMERAS), len(CAMERAS))
    return folders


def seconds(folders: dict[str, Path]) -> float:
    """Return how long the longest camera plays."""
    longest_s = 0.0
    for folder in folders.values():
        camera = ReplayCamera("probe", folder, clock=SystemClock(), realtime=False)
        camera.open()
        first = last = camera.read()
        while (frame := camera.read()) is not None:
            last = frame
        camera.close()
        if first is not None and last is not None:
            longest_s = max(longest_s, last.monotonic_s - first.monotonic_s)
    return longest_s


def _still(clip: Path) -> Image:
    camera = ReplayCamera("still", clip, clock=SystemClock(), realtime=False)
    camera.open()
    try:
        frame = camera.read()
    finally:
        camera.close()
    if frame is None:
        raise MediaError(f"{clip}: has no frame")
    return frame.image
