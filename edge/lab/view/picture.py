"""One picture of an aiming view, each face with its size and verdict: as JPEG, and in words."""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from edge.core.errors import MediaError
from edge.core.types import Refusal
from edge.device.cameras.feed import FeedPicture
from edge.lab.drawing import COLOURS, WAITING, write
from edge.recognition.scene import CameraScene, SceneFace

JPEG_QUALITY = 80
"""Of 100: some 100 kB for 960 x 540."""

MIN_WIDTH_PX = 640
"""Smaller pictures are enlarged so that the writing can be read."""

GOOD = (80, 200, 60)
"""BGR of a face whose last shot was usable."""

VERDICTS: dict[Refusal, str] = {
    Refusal.SIZE: "too small: hang the camera nearer, or use a longer lens",
    Refusal.BLUR: "blurred: focus the lens, shorten the exposure, give more light",
    Refusal.POSE: "turned away: let the camera face whoever comes",
    Refusal.EXPOSURE: "too dark, too bright, or before something bright: mind lamps and windows",
    Refusal.SCORE: "hardly a face: see what is before the lens",
    Refusal.CROPPED: "cut off by the edge: turn the camera",
    Refusal.COVERED: "covered below",
    Refusal.SUNGLASSES: "eyes hidden",
    Refusal.NOISE: "grainy: give more light",
    Refusal.TILT: "tilted: see that the camera hangs upright",
    Refusal.RECOGNISABILITY: "hardly recognisable: upside down, or covered?",
    Refusal.LIVENESS: "liveness could not be measured",
}
"""What is wrong with a shot, and what a camera's place can do about it."""


@dataclass(frozen=True, slots=True)
class ViewPicture:
    """A picture with what is drawn into it, as JPEG, and what it says, for the page."""

    number: int
    jpeg: bytes
    words: dict[str, Any]


def view_picture(number: int, shown: FeedPicture) -> ViewPicture:
    """Draw and encode a picture.

    Raises:
        MediaError: It cannot be encoded.
    """
    scale = max(1.0, MIN_WIDTH_PX / shown.image.shape[1])
    image = np.array(cv2.resize(shown.image, None, fx=scale, fy=scale), np.uint8)
    height, width = image.shape[:2]
    for face in shown.scene.faces:
        colour = COLOURS[face.decided] if face.decided else GOOD if _good(face) else WAITING
        x1, y1, x2, y2 = (round(each * by) for each, by in zip(face.box, (width, height) * 2, strict=True))
        cv2.rectangle(image, (x1, y1), (x2, y2), colour, 2 if face.seen else 1, cv2.LINE_AA)
        write(
            image, f"{face.face_px:.0f} px, {shown.scene.needed_px:.0f} needed", (x1, max(14, y1 - 6)), colour
        )
        write(image, verdict(face).partition(":")[0], (x1, min(height - 6, y2 + 18)), colour)
    ok, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise MediaError("the picture cannot be encoded")
    return ViewPicture(number, jpeg.tobytes(), words(number, shown.scene))


def words(number: int, scene: CameraScene) -> dict[str, Any]:
    """Return what a picture says, for the page."""
    return {
        "number": number,
        "camera": scene.camera,
        "frame": f"{scene.width} x {scene.height}",
        "needed_px": round(scene.needed_px),
        "faces": [
            {
                "face_px": round(face.face_px),
                "large_enough": face.face_px >= scene.needed_px,
                "good": _good(face),
                "verdict": verdict(face),
                "told": face.told,
                **{name: round(asdict(face)[name], 2) for name in ("sharpness", "yaw_deg", "exposure")},
            }
            for face in scene.faces
        ],
    }


def verdict(face: SceneFace) -> str:
    """Return what was said of the last shot of a face."""
    if not face.judged:
        return "not judged yet"
    return "good" if face.refused is None else VERDICTS[face.refused]


def _good(face: SceneFace) -> bool:
    return face.judged and face.refused is None
