"""Which way a photo or a camera shows faces: whether the embedder is surer of one that is shown otherwise.

A detector puts upright landmarks on faces that are upside down. An embedder is not deceived: of a face that
is turned, a negative or squeezed it is less sure than of the same face put right. Decides about no visit.
"""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from edge.camera.mounting import turned
from edge.core.types import Detection, Image, Probe
from edge.face.quality import width_ratio
from edge.recognition.recognizer import Recognizer

SIDE_PX, DETECTOR_SIDE_PX = 256, 160
"""Side that a face with its neighbourhood is reduced to, and that of the detector's input for it."""

REACH = 1.1
"""How far that neighbourhood reaches from the middle of a face, in its longer sides."""

SURER = math.log(10)
"""Log odds by which another showing has to be surer.

Measured with sface-int8 on lfw-dev faces that pass the gate of enrolment (length over width of the scale): of
120 clean faces none gains more than .2 when it is turned or made a negative, of 354 faces turned by 45 to 180
degrees or negative 98 in 100 gain 4 or more.
"""

STRETCHED = 2 * SURER
"""The same for a face that is made narrower: wide faces gain up to 3.6, those of photos twice as wide 5.2."""

SQUEEZED_BELOW, NARROW_BELOW, NARROW_GAIN = 0.8, 0.95, -1.0
"""Ratio of a face's width to its height (`width_ratio`) below which its photo is squeezed; and a ratio below
which it is where a wider face is hardly less sure: where it gains more than so much, in log odds.

Measured as above: of clean faces 1 in 120, of faces in photos of .5 times the width all, of .6 times 95 %, of
.7 times 78 %, of .8 times 55 %.
"""

TURNS_DEG = (45, 90, 135, 180, 225, 270, 315)
"""Clockwise turns that are tried."""

WIDER, NARROWER = (1.4, 2.0), 0.5
"""Times the width that are tried."""

SUREST = 1e-15
"""Recognisabilities are told apart up to so much below 1."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with how a face is shown, and what to do about it."""

    what: str
    advice: str


def wrongly_shown(image: Image, face: Detection, probe: Probe, recognizer: Recognizer) -> Wrong | None:
    """Return what is wrong with how a BGR photo shows a face; None: nothing, or the embedder has no scale.

    `probe` is what was made of it. Takes about 100 ms.
    """
    now = sureness(probe)
    if now is None:
        return None
    look = _Look(_around(image, face), recognizer)
    best = max(TURNS_DEG, key=look.turned)
    if look.turned(best) > now + SURER:
        return _turn(best)
    if look.at(np.asarray(255 - look.image, np.uint8)) > now + SURER:
        return Wrong("the photo seems to be a negative", "use one with its true colours")
    if look.stretched(NARROWER) > now + STRETCHED:
        return Wrong("the photo seems to be stretched in width", "use one in its true shape")
    ratio = width_ratio(face.landmarks)
    if ratio < SQUEEZED_BELOW or (
        ratio < NARROW_BELOW and max(map(look.stretched, WIDER)) > now + NARROW_GAIN
    ):
        return Wrong("the photo seems to be squeezed in width", "use one in its true shape")
    return None


def sureness(probe: Probe) -> float | None:
    """Return the log odds of a probe's recognisability; None where it was not measured."""
    sure = probe.quality.recognisability
    if sure is None:
        return None
    sure = min(max(sure, SUREST), 1 - SUREST)
    return math.log(sure / (1 - sure))


def surest_turn(image: Image, recognizer: Recognizer) -> dict[int, float]:
    """Return how sure the embedder is of the largest face of a frame, by how far it is turned clockwise.

    The recognisability in [0, 1] for 0, 90, 180 and 270 degrees; where no face is found, none.
    """
    found = {}
    for degrees in (0, 90, 180, 270):
        shown = turned(image, degrees)
        face = max(recognizer.detect(shown), key=lambda each: each.size_px, default=None)
        if face is None:
            continue
        probe = recognizer.embed(recognizer.align(shown, face))
        if probe.quality.recognisability is not None:
            found[degrees] = probe.quality.recognisability
    return found


class _Look:
    """The neighbourhood of a face, shown otherwise."""

    def __init__(self, image: Image, recognizer: Recognizer) -> None:
        self.image = image
        self._recognizer = replace(recognizer, detector=recognizer.detector.at(DETECTOR_SIDE_PX))
        self._turned: dict[int, float] = {}

    def at(self, image: Image) -> float:
        """Return how sure the embedder is of the face in the middle of an image, in log odds."""
        middle = np.array(image.shape[1::-1], np.float32) / 2
        face = min(
            self._recognizer.detect(image),
            key=lambda each: float(np.linalg.norm((each.box[:2] + each.box[2:]) / 2 - middle)),
            default=None,
        )
        if face is None:
            return -math.inf
        sure = sureness(self._recognizer.embed(self._recognizer.align(image, face)))
        return -math.inf if sure is None else sure

    def turned(self, degrees: int) -> float:
        if degrees not in self._turned:
            self._turned[degrees] = self.at(_turned(self.image, degrees))
        return self._turned[degrees]

    def stretched(self, times: float) -> float:
        size = max(1, round(self.image.shape[1] * times)), self.image.shape[0]
        return self.at(np.asarray(cv2.resize(self.image, size), np.uint8))


def _turn(degrees: int) -> Wrong:
    quarters = {90: "clockwise by 90 degrees", 180: "by 180 degrees", 270: "counter-clockwise by 90 degrees"}
    if degrees == 180:
        return Wrong("the face is upside down", f"turn the photo {quarters[180]}")
    if degrees in quarters:
        return Wrong("the face lies on its side", f"turn the photo {quarters[degrees]}")
    return Wrong("the head is tilted", "use a photo of an upright head")


def _turned(image: Image, degrees: int) -> Image:
    """Turn a square picture clockwise about its middle, drawing its edge out."""
    if degrees % 90 == 0:
        return turned(image, degrees)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    return np.asarray(
        cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


def _around(image: Image, face: Detection) -> Image:
    """Cut a face with its neighbourhood out of a photo, square; what lies outside repeats the edge."""
    height, width = image.shape[:2]
    middle = (face.box[:2] + face.box[2:]) / 2
    reach = REACH * float(max(face.box[2:] - face.box[:2]))
    (x1, y1), (x2, y2) = np.floor(middle - reach).astype(int), np.ceil(middle + reach).astype(int)
    inside = image[max(0, y1) : max(1, y2), max(0, x1) : max(1, x2)]
    beyond = (max(0, -y1), max(0, y2 - height), max(0, -x1), max(0, x2 - width))
    cut = cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE)
    scale = SIDE_PX / max(cut.shape[:2])
    return np.asarray(
        cut if scale >= 1 else cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA),
        np.uint8,
    )
