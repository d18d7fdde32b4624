"""Make door.png, the picture in README.md: two clips of the demo, with every head drawn over.

Usage: python deploy/picture.py [PNG]. Needs the models and clips that `edge demo` brings. The people in the
clips were not asked whether their faces may stand here: the pipeline sees the frames as they are, and in the
picture a drawing stands in the place of each head.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import EventType, Image
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import Settings, load
from edge.lab.demo.device import enrolled
from edge.lab.demo.media import media_dir
from edge.lab.replay import AnnotatedVideo
from edge.recognition.recognizer import Recognizer

HEAD = (2.0, 1.7)
"""Width and height of what is made unrecognisable, in boxes of the detector: with hair, ears and chin."""

SQUARES = 4
"""Squares to a side that the colours in and around a head are averaged over."""

PANEL = (640, 360)
SHOWN_AFTER = 8
"""Frames after the decision that is shown."""

COLOUR_STEP = 12
"""Colours are rounded to multiples of this: a PNG of a photograph is large otherwise."""

PANELS = (
    ("face_noface.mov", EventType.MATCH, ("Somebody enrolled stands at the door.", "One decision: match.")),
    (
        "carphone_pristine.mp4",
        EventType.REJECT,
        ("Nobody enrolled looks like this.", "One decision: reject."),
    ),
)
"""Clip, the decision to show, and what is written below it."""

LEGEND = (
    "Box and dots: the face that is followed; a drawing stands in the place of each head.",
    "0.96 and 0.32: how alike the face and the most alike subject are (1 is the same picture).",
    "0.44: the threshold, which follows from the number of enrolled subjects, here 42.",
)
INK, PAPER = (40, 40, 40), (255, 255, 255)


def covered(image: Image, box: tuple[float, float, float, float]) -> Image:
    """Return the frame with a drawing in the place of the head around a box (x1, y1, x2, y2) in pixels."""
    x1, y1, x2, y2 = box
    middle = (round((x1 + x2) / 2), round((y1 + y2) / 2 - 0.06 * (y2 - y1)))
    half = (round((x2 - x1) * HEAD[0] / 2), round((y2 - y1) * HEAD[1] / 2))
    left, top = max(0, middle[0] - half[0]), max(0, middle[1] - half[1])
    right, bottom = min(image.shape[1], middle[0] + half[0]), min(image.shape[0], middle[1] + half[1])
    found = image.copy()
    part = found[top:bottom, left:right]
    small = cv2.resize(part, (SQUARES, SQUARES), interpolation=cv2.INTER_AREA)
    found[top:bottom, left:right] = cv2.resize(small, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    radii = (round((x2 - x1) * 0.62), round((y2 - y1) * 0.64))
    cv2.ellipse(found, middle, radii, 0, 0, 360, (205, 215, 225), -1, cv2.LINE_AA)
    cv2.ellipse(found, middle, radii, 0, 0, 360, (120, 130, 140), 2, cv2.LINE_AA)
    return found


def scene(clip: Path, shown: EventType, settings: Settings, recognizer: Recognizer) -> Image:
    """Return the annotated frame a little after the first decision of that kind in the clip."""
    clock = SystemClock()
    camera = ReplayCamera("door", clip, clock=clock, realtime=False)
    pipeline = build_pipeline("door", settings, metrics=Metrics(), clock=clock, live=False)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "scene.mp4"
        left = None
        camera.open()
        with AnnotatedVideo(path, fps=25.0) as video:
            while left != 0 and (frame := camera.read()) is not None:
                events = pipeline.process(frame, recognizer)
                tracks = pipeline.scene()
                image = frame.image
                for track, _ in tracks:
                    image = covered(image, tuple(map(float, track.box)))
                video.add(replace(frame, image=image), tracks, events)
                if left is not None:
                    left -= 1
                elif any(event.event_type == shown for event in events):
                    left = SHOWN_AFTER
        camera.close()
        written = cv2.VideoCapture(str(path))
        last = None
        while (read := written.read())[0]:
            last = read[1]
        written.release()
    if left != 0 or last is None:
        raise SystemExit(f"{clip.name}: no {shown.value} in it")
    return np.asarray(last, np.uint8)


def main() -> None:
    """Write the picture."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("door.png")
    settings = load()
    media = media_dir(settings)
    recognizer = build_recognizer(settings)
    recognizer = recognizer.with_gallery(enrolled(recognizer, media, lambda what, done, total: None))
    panels = []
    for clip, shown, words in PANELS:
        image = scene(media / clip, shown, settings, recognizer)
        scale = max(PANEL[0] / image.shape[1], PANEL[1] / image.shape[0])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top = (image.shape[0] - PANEL[1]) // 2
        image = image[image.shape[0] - PANEL[1] - top :][: PANEL[1], : PANEL[0]]
        image = np.asarray(image // COLOUR_STEP * COLOUR_STEP, np.uint8)
        strip = np.full((60, PANEL[0], 3), PAPER, np.uint8)
        for line, text in enumerate(words):
            cv2.putText(strip, text, (8, 24 + 26 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.7, INK, 1, cv2.LINE_AA)
        panels += [np.vstack([image, strip]), np.full((PANEL[1] + 60, 10, 3), PAPER, np.uint8)]
    picture = np.hstack(panels[:-1])
    legend = np.full((84, picture.shape[1], 3), PAPER, np.uint8)
    for line, text in enumerate(LEGEND):
        cv2.putText(legend, text, (8, 22 + 25 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.65, INK, 1, cv2.LINE_AA)
    cv2.imwrite(str(out), np.vstack([picture, legend]), [cv2.IMWRITE_PNG_COMPRESSION, 9])


if __name__ == "__main__":
    main()
