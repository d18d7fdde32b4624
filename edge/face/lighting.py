"""Lift dark pictures before a face is looked for or embedded: spread their levels, smooth their noise.

A picture is judged by its own levels: a reduced frame, the neighbourhood of one face, an aligned face. So a
dark face before a bright door is lifted though its frame is bright. Knows no face and no camera.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray, Image

DARK_BELOW = 100
"""Luma of the brightest pixels under which a picture is dark.

Of photos and faces of lfw-dev, by day and by flash, none stays below 120.
"""

BLACK_SHARE, WHITE_SHARE = 0.01, 0.005
"""Shares of pixels that may turn black and white when levels are spread: the 1st and 99.5th percentile."""

FACE_DARK_BELOW = 64
"""The same for a face. The network reads faces at half the levels as they are: TPIR .96, lifted .92-.96."""

FACE_WHITE_SHARE = 0.05
"""Share of a face's pixels that are brighter: glints on glasses, a bright door beside a turned head."""

FACE_TOP = 180
"""Level that the brightest of a dark face get; what is brighter still is pressed into the rest.

So a bright door behind a face keeps its edges. Measured on lfw-dev faces before a bright door, share named at
a cosine of .38: at gain .25 .825 (.775 where all beyond the face turns white, .817 not lifted), at .12 .28
(.26, .18).
"""

MAX_FACTOR = 25.0
"""Levels are spread no further: what a camera tells apart in ten levels or fewer is its noise."""

NOISE_PER_PX = 10.0
"""Noise in grey levels, after the levels were spread, that is worth a Gaussian of 1 px.

Measured on lfw-dev at noise of 4 levels, TPIR at FPIR .01: at gain .25 a Gaussian of 1 px gives .96 and one
of 2 px .90; at gain .12 none gives .73, 1 px .90, 1.5 px .93, 2 px .92. Bilateral filters and non-local means
gain nothing over it.
"""

LEAST_BLUR_PX, MOST_BLUR_PX = 0.3, 2.0
"""Standard deviation of the Gaussian: below the first it changes nothing, past the second it takes faces."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation over the median of absolute values of normal noise."""

GLARE_PX, GLARE_STEP, GLARE_BLUR_PX = 17, 4, 12.0
"""Side of the neighbourhoods whose darkest channel is glare, its reduction, and how far it is smoothed.

What a bright door lays over a dark face grows towards its edge and has no detail. Source: the dark channel of
He, Sun and Tang (2009). Measured on lfw-dev faces before a bright door at gain .25, TPIR at FPIR .01 / .001:
with the glare .68 / .50, without it .78 / .70. Neighbourhoods of 9 px take the face as well (.62 / .55), and
35 px leave more glare (.71 / .67). It costs a fraction of a millisecond.
"""

GLARE_SHARE = 0.9
"""Share of the glare that is taken away: with all of it, shadows turn black."""

GLARE_OWN, GLARE_MOST = 0.02, 240.0
"""Quantile of the glare before the middle of a face that is its own darkness; most glare, in levels."""

SHADOW_BELOW = 30
"""Luma of what lies in the shadow of a scene that has bright parts too."""

SHADOW_SHARE = 0.4
"""A scene of which this much lies in the shadow is back-lit, or lit by a lamp: its shadows are lifted."""

SHADOW_FLOOR, SHADOW_SLOPE = 6.0, 0.1
"""The curve that lifts shadows and keeps highlights: black up to the floor, then log(1 + slope * level).

Measured on faces of 100 px before a bright door at 1280x720: at gain .25 .97 are found (.85 without), at .12
.77 (.04), at .5 and 1 .98 and all, as without. Powers of .6 and .45 find .47 and .55 at gain .12. Smoothing
finds fewer.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Lift:
    """How a picture is lifted: a table of levels (256,), and a Gaussian of `blur_px`, 0 for none.

    `factor` is how many times the darkest levels are spread.
    """

    table: NDArray[np.uint8]
    factor: float
    blur_px: float = 0.0

    def apply(self, image: Image) -> Image:
        """Return the image with its levels spread and its noise smoothed."""
        lifted = cv2.LUT(image, self.table)
        if self.blur_px > 0:
            lifted = cv2.GaussianBlur(lifted, (0, 0), self.blur_px)
        return np.asarray(lifted, np.uint8)


def _shadow_lift() -> Lift:
    levels = np.maximum(np.arange(256) - SHADOW_FLOOR, 0.0)
    curve = np.log1p(SHADOW_SLOPE * levels) * (255 / np.log1p(SHADOW_SLOPE * levels[-1]))
    return Lift(curve.round().astype(np.uint8), float(curve[int(SHADOW_FLOOR) + 1]))


SHADOW_LIFT = _shadow_lift()
"""For scenes with both shadows and highlights."""


def lift_of_scene(image: Image, step: int) -> Lift | None:
    """Return how to lift a BGR scene in which faces are looked for, None where it is bright enough.

    Looks at every `step`-th pixel of every `step`-th line: a bright scene costs microseconds.
    """
    size = -(-image.shape[1] // step), -(-image.shape[0] // step)
    grey = _grey(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_NEAREST), np.uint8))
    if not _is_bright(grey, DARK_BELOW, WHITE_SHARE):
        return _spread(grey, image[::step], WHITE_SHARE, 255)
    shadow = cv2.countNonZero(cv2.inRange(grey, 0, SHADOW_BELOW - 1))
    return SHADOW_LIFT if shadow >= SHADOW_SHARE * grey.size else None


def lift_of_face(image: Image) -> Lift | None:
    """Return how to lift a face that fills a BGR picture, None where it is bright enough."""
    grey = _grey(image)
    if _is_bright(grey, FACE_DARK_BELOW, FACE_WHITE_SHARE):
        return None
    return _spread(grey, image, FACE_WHITE_SHARE, FACE_TOP)


def glare_over(face: Image) -> FloatArray:
    """Return the light that lies over an aligned BGR face, in levels (H, W): smooth, without detail."""
    blue, green, red = cv2.split(face)
    darkest = cv2.min(cv2.min(blue, green), red)
    least = cv2.erode(darkest, np.ones((GLARE_PX, GLARE_PX), np.uint8)).astype(np.float32)
    share = 1 / GLARE_STEP
    small = cv2.resize(least, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(small, (0, 0), GLARE_BLUR_PX * share)
    return np.asarray(cv2.resize(smooth, face.shape[1::-1]), np.float32)


def without_glare(face: Image, glare: FloatArray, middle: tuple[slice, slice]) -> Image:
    """Return an aligned BGR face without the light that lies over it; the least in its `middle` is its own.

    What shows through less is spread as much as it was pressed.
    """
    own = float(np.quantile(glare[middle], GLARE_OWN))
    over = GLARE_SHARE * np.maximum(glare - own, 0)[..., None]
    rest = (face - over) / (1 - np.minimum(over, GLARE_MOST) / 255)
    return np.asarray(np.clip(rest, 0, 255).round(), np.uint8)


def noise_levels(image: Image) -> float:
    """Return the standard deviation of the noise in a BGR image, in grey levels of its luma.

    It is the median of second differences along the rows, which edges and slopes leave alone. Source: the
    robust estimate of Donoho and Johnstone (1994), on second differences instead of wavelets.
    """
    grey = _grey(image).astype(np.float32)
    second = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    return MAD_TO_SIGMA * float(np.median(np.abs(second))) / 6.0**0.5 if second.size else 0.0


def _spread(grey: Image, image: Image, white_share: float, top: int) -> Lift:
    """Spread the levels of `grey` between black and white over 0 to `top`, and those beyond over the rest.

    `image` shows the noise, in whole rows.
    """
    black, white = map(float, np.quantile(grey, (BLACK_SHARE, 1 - white_share)))
    white = min(254.0, max(white, black + top / MAX_FACTOR))
    table = np.interp(np.arange(256), (black, white, 255), (0, top, 255)).round().astype(np.uint8)
    factor = top / (white - black)
    blur_px = noise_levels(image) * factor / NOISE_PER_PX
    return Lift(table, factor, min(blur_px, MOST_BLUR_PX) if blur_px >= LEAST_BLUR_PX else 0.0)


def _is_bright(grey: Image, level: int, white_share: float) -> bool:
    return cv2.countNonZero(cv2.inRange(grey, level, 255)) > white_share * grey.size


def _grey(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY), np.uint8)
