"""Which way a photo or a camera shows a face: whether the embedder is surer of one that is shown otherwise.

A detector puts upright landmarks on faces that are upside down. An embedder is not deceived: of a face that
is turned, a negative or squeezed it is less sure than of the same face put right. Decides about no visit.
"""

import math
from dataclasses import replace

import cv2
import numpy as np

from edge.camera.mounting import turned
from edge.core.types import Detection, Image, Quality, Refusal
from edge.face.quality import width_ratio
from edge.recognition.recognizer import Recognizer

SIDE_PX, DETECTOR_SIDE_PX = 256, 160
"""Side that a face with its neighbourhood is reduced to, and that of the detector's input for it."""

REACH = 1.1
"""How far that neighbourhood reaches from the middle of a face, in its longer sides."""

SURE = math.log(0.99 / 0.01)
"""Log odds of a recognisability from which on nothing is tried: so sure of a face as it is shown.

Measured with sface-int8 on 120 lfw-dev photos: of four plain faces three are so sure, of those turned by 60
degrees and more, negative or twice as wide hardly one in a hundred.
"""

SURER = math.log(10)
"""Log odds by which another showing has to be surer.

Measured as above: no plain face gains more than .2 when it is turned by 90 degrees or more or made a
negative; of faces turned by 60 to 180 degrees or negative 98 in 100 gain 4 or more.
"""

TILTED, STRETCHED = 2 * SURER, 2 * SURER
"""The same for a face that is turned by 45 degrees, and for one that is made narrower.

Landmarks that are found a little better gain less than that in 597 of 600 plain faces. Those twice as wide
gain 5 to 16 when they are made narrower.
"""

SQUEEZED_BELOW, NARROW_BELOW = 0.75, 0.95
"""Ratio of a face's width to its height (`width_ratio`) below which its photo is squeezed; and a ratio below
which it is where a wider face is surer."""

WIDER = {1.4: 1.0, 1.7: 0.0, 2.0: 0.0}
"""Times the width that are tried, and the log odds by which a face has to be surer.

Measured as above: of 397 plain faces 6, some with open mouths; of 364 faces in photos of .5 times the width
all, of .75 times 43 %.
"""

TURNS = (45, 90, 135, 180, 225, 270, 315)
"""Clockwise turns that are tried, in degrees."""

WAYS = {90: "clockwise by 90 degrees", 180: "by 180 degrees", 270: "counter-clockwise by 90 degrees"}
"""How turns are called in messages."""

NARROWER = 0.5
"""Times the width that is tried of faces that may be stretched."""

SUREST = 1e-15
"""Recognisabilities are told apart up to so much below 1."""


def wrongly_shown(image: Image, face: Detection, quality: Quality, recognizer: Recognizer) -> str | None:
    """Return what is wrong with how a BGR photo shows a face and what to do; None: nothing.

    `quality` is that of its probe. Takes microseconds for plain faces of which the embedder is sure, and 100
    ms for others. Of a shot that was not embedded, and without a scale, nothing is known.
    """
    now = sureness(quality)
    if now is None:
        return None
    looks = _Looks(image, face, recognizer)
    ratio = width_ratio(recognizer.detector.refine(image, face).landmarks)
    if now < SURE or ratio < NARROW_BELOW:
        now = max(now, looks.at(looks.image))
    if now < SURE:
        sure = {degrees: looks.at(_turned(looks.image, degrees)) for degrees in TURNS}
        gains = {
            degrees: each - now - (SURER if degrees in WAYS else TILTED) for degrees, each in sure.items()
        }
        best = max(TURNS, key=lambda degrees: gains[degrees])
        if gains[best] > 0:
            return _told(best)
        if looks.at(np.asarray(255 - looks.image, np.uint8)) > now + SURER:
            return "the photo seems to be a negative; use one in its true colours"
    if quality.refused in (Refusal.COVERED, Refusal.SUNGLASSES):
        return None
    if now < SURE:
        if looks.at(_widened(looks.image, NARROWER)) > now + STRETCHED:
            return "the photo seems to be stretched in width; use one in its true shape"
    squeezed = ratio < SQUEEZED_BELOW or (
        ratio < NARROW_BELOW
        and any(looks.at(_widened(looks.image, times)) > now + gain for times, gain in WIDER.items())
    )
    return "the photo seems to be squeezed in width; use one in its true shape" if squeezed else None


def way_to_turn(image: Image, recognizer: Recognizer) -> str | None:
    """Return how to turn a photo without a face so that one is found, in words; None: in no way."""
    found = {degrees: recognizer.detect(turned(image, degrees)) for degrees in WAYS}
    score = {degrees: max(face.score for face in faces) for degrees, faces in found.items() if faces}
    return WAYS[max(score, key=lambda degrees: score[degrees])] if score else None


def sureness(quality: Quality) -> float | None:
    """Return the log odds of a recognisability; None where it was not measured."""
    if quality.recognisability is None:
        return None
    sure = min(max(quality.recognisability, SUREST), 1 - SUREST)
    return math.log(sure / (1 - sure))


def sure_by_turn(image: Image, recognizer: Recognizer) -> dict[int, float]:
    """Return how sure the embedder is of the largest face of a frame, by how far it is turned clockwise.

    The recognisability in [0, 1] for 0, 90, 180 and 270 degrees; where no face is found, none.
    """
    found = {}
    for degrees in (0, 90, 180, 270):
        shown = turned(image, degrees)
        face = max(recognizer.detect(shown), key=lambda each: each.size_px, default=None)
        if face is None:
            continue
        quality = recognizer.embed(recognizer.align(shown, face)).quality
        if quality.recognisability is not None:
            found[degrees] = quality.recognisability
    return found


class _Looks:
    """Looks at a face and its neighbourhood, `image`, shown otherwise."""

    def __init__(self, image: Image, face: Detection, recognizer: Recognizer) -> None:
        self.image = _around(image, face)
        self._recognizer = replace(recognizer, detector=recognizer.detector.at(DETECTOR_SIDE_PX))

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
        sure = sureness(self._recognizer.embed(self._recognizer.align(image, face)).quality)
        return -math.inf if sure is None else sure


def _told(degrees: int) -> str:
    if degrees not in WAYS:
        return "the head is tilted; use a photo of an upright head"
    how = "is upside down" if degrees == 180 else "lies on its side"
    return f"the face {how}; turn the photo {WAYS[degrees]}"


def _turned(image: Image, degrees: int) -> Image:
    """Turn a square picture clockwise about its middle; what lies outside repeats the edge."""
    if degrees % 90 == 0:
        return turned(image, degrees)
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1)
    shown = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(shown, np.uint8)


def _widened(image: Image, times: float) -> Image:
    return np.asarray(cv2.resize(image, (max(1, round(image.shape[1] * times)), image.shape[0])), np.uint8)


def _around(image: Image, face: Detection) -> Image:
    """Cut a face with its neighbourhood out of a photo, square; what lies outside repeats the edge."""
    height, width = image.shape[:2]
    middle = (face.box[:2] + face.box[2:]) / 2
    reach = REACH * float(max(face.box[2:] - face.box[:2]))
    (x1, y1), (x2, y2) = np.floor(middle - reach).astype(int), np.ceil(middle + reach).astype(int)
    inside = image[max(0, y1) : max(1, y2), max(0, x1) : max(1, x2)]
    above, below, left, right = (max(0, int(far)) for far in (-y1, y2 - height, -x1, x2 - width))
    cut = np.asarray(cv2.copyMakeBorder(inside, above, below, left, right, cv2.BORDER_REPLICATE), np.uint8)
    if max(cut.shape[:2]) > SIDE_PX:
        cut = np.asarray(cv2.resize(cut, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)
    return cut
