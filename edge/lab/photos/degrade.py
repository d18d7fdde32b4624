"""Make photos worse in the ways a door camera does: blur, distance, darkness, glare, compression.

Pure functions of pixels. Knows no detector and no protocol; what a degradation costs is measured elsewhere.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray, Image

REFERENCE_FACE_PX = 100.0
"""Blur is given in pixels of a face this wide and scaled to the face at hand: near faces blur more."""

GAMMA = 2.2
"""Exponent between stored levels and light. Source: the nominal value of ITU-R BT.709 displays and sRGB."""

MOTION_ANGLE_DEG = 20.0
"""Direction of motion blur: people walk past a camera nearly level, their heads bob a little."""

NOISE_LEVELS = 6.0
"""Standard deviation of sensor noise in a dark picture, in grey levels of 255."""


@dataclass(frozen=True, slots=True)
class Degradation:
    """A named way to spoil a photo; `apply(image, face_px)` takes the width of its face in pixels.

    `kind` groups what differs in `strength` only. `turn_deg` is by how much `apply` turns the photo about its
    middle, counter-clockwise. `wear` puts something on the face with landmarks (5, 2) instead of `apply`.
    """

    kind: str
    strength: float
    apply: Callable[[Image, float], Image]
    turn_deg: float = 0.0
    wear: Callable[[Image, FloatArray], Image] | None = None

    @property
    def name(self) -> str:
        """How reports call it, e.g. `blur 2`."""
        return f"{self.kind} {self.strength:g}" if self.strength else self.kind


DARK_GAIN_NOISE = 4.0
"""Standard deviation of sensor noise in `conditions`, in grey levels of 255, the same at every gain."""

BACKGROUND_LEVEL = 250.0
"""Level of the bright door behind a face in `conditions`."""

HEAD_WIDE, HEAD_HIGH = 0.8, 1.1
"""Half axes of the head and neck that stand before the door, in face widths."""

INFRARED = np.array([0.0, 0.15, 0.85], np.float32)
"""Shares of blue, green and red in a picture as by infrared light: skin is bright and even in both, lips and
spots pale. A stand-in: no infrared photos of the same people were at hand."""


def gaussian_blur(image: Image, sigma_px: float) -> Image:
    """Blur as a lens out of focus does, by a Gaussian of `sigma_px`; 0 changes nothing."""
    return image.copy() if sigma_px <= 0 else np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.uint8)


def motion_blur(image: Image, length_px: float, angle_deg: float) -> Image:
    """Blur along a line of `length_px` at `angle_deg` above the level; up to 1 px changes nothing.

    The line has its exact length: it is drawn eight times finer than the pixels and averaged down.
    """
    if length_px <= 1:
        return image.copy()
    fine, half = 8, int(np.ceil(length_px / 2))
    side = 2 * half + 1
    line = np.zeros((side * fine, side * fine), np.uint8)
    reach = length_px / 2 * np.array([np.cos(np.radians(angle_deg)), -np.sin(np.radians(angle_deg))])
    middle = np.full(2, side / 2)
    ends = [tuple(int(v) for v in np.round((middle + sign * reach) * fine)) for sign in (-1, 1)]
    cv2.line(line, ends[0], ends[1], 255, fine)
    kernel = cv2.resize(line.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT), np.uint8)


def shrink(image: Image, scale: float) -> Image:
    """Reduce by area averaging, as a face further away is seen; a scale of 1 or more changes nothing."""
    if scale >= 1:
        return image.copy()
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def expose(image: Image, light: float, noise_levels: float = 0.0) -> Image:
    """Take the photo with `light` times the light; what exceeds the range is clipped.

    Gaussian noise of `noise_levels` is added. It follows from the pixels: the same photo gives the same
    noise, another photo another one.
    """
    levels = (np.arange(256) / 255.0) ** GAMMA * light
    table = 255.0 * np.minimum(levels, 1.0) ** (1 / GAMMA)
    return _noisy(table[image], image, noise_levels)


def compress(image: Image, quality: int) -> Image:
    """Store as JPEG of `quality` (1-100) and read back."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _blur(image: Image, face_px: float, *, sigma: float) -> Image:
    return gaussian_blur(image, sigma * face_px / REFERENCE_FACE_PX)


def _motion(image: Image, face_px: float, *, length: float) -> Image:
    return motion_blur(image, length * face_px / REFERENCE_FACE_PX, MOTION_ANGLE_DEG)


def _small(image: Image, face_px: float, *, wanted_px: float) -> Image:
    return shrink(image, wanted_px / face_px)


def _dark(image: Image, face_px: float, *, light: float) -> Image:
    return expose(image, light, NOISE_LEVELS)


def _bright(image: Image, face_px: float, *, light: float) -> Image:
    return expose(image, light)


def _jpeg(image: Image, face_px: float, *, quality: int) -> Image:
    return compress(image, quality)


def _clean(image: Image, face_px: float) -> Image:
    return image


def degradations() -> list[Degradation]:
    """Return what a door camera does to faces, in several strengths; the first leaves the photo as it is.

    `blur` and `motion` are pixels at REFERENCE_FACE_PX, `small` is the width of the face in pixels, `dark`
    and `bright` are times the light, `jpeg` is the quality.
    """
    return [
        Degradation("clean", 0, _clean),
        *(Degradation("blur", s, partial(_blur, sigma=s)) for s in (1.0, 2.0, 3.0, 4.0, 6.0)),
        *(Degradation("motion", n, partial(_motion, length=n)) for n in (5.0, 10.0, 15.0, 20.0)),
        *(Degradation("small", px, partial(_small, wanted_px=px)) for px in (48.0, 40.0, 32.0, 24.0, 16.0)),
        *(Degradation("dark", g, partial(_dark, light=g)) for g in (0.1, 0.03, 0.01)),
        *(Degradation("bright", g, partial(_bright, light=g)) for g in (4.0, 10.0)),
        Degradation("jpeg", 20, partial(_jpeg, quality=20)),
    ]


def dim(image: Image, gain: float, noise_levels: float = 0.0) -> Image:
    """Multiply the levels by `gain`, as a short exposure does, and add Gaussian noise as `expose` does."""
    return _noisy(image * np.float32(gain), image, noise_levels)


def before_bright_door(image: Image, face_px: float, gain: float, noise_levels: float = 0.0) -> Image:
    """Put the head in the middle of a photo, its levels multiplied by `gain`, before a white background."""
    height, width = image.shape[:2]
    x = (np.arange(width, dtype=np.float32) - width / 2) / (HEAD_WIDE * face_px)
    y = (np.arange(height, dtype=np.float32) - height / 2) / (HEAD_HIGH * face_px)
    head = np.exp(-((x[None, :] ** 2 + y[:, None] ** 2) ** 3))[..., None]
    return _noisy(image * (gain * head) + BACKGROUND_LEVEL * (1 - head), image, noise_levels)


def grey(image: Image) -> Image:
    """Return the luma of a photo in all three channels."""
    return np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)


def infrared(image: Image, noise_levels: float = 0.0) -> Image:
    """Return a photo much as a camera by infrared light shows it: INFRARED, brightest in the middle."""
    height, width = image.shape[:2]
    light = (image @ INFRARED / 255.0) ** 0.8
    x = (np.arange(width, dtype=np.float32) / width - 0.5)[None, :]
    y = (np.arange(height, dtype=np.float32) / height - 0.5)[:, None]
    lit = 230.0 * light * np.exp(-2.0 * (x**2 + y**2))
    return _noisy(np.repeat(lit[..., None], 3, axis=2), image, noise_levels, channels=1)


def turned(image: Image, angle_deg: float) -> Image:
    """Turn a photo counter-clockwise about its middle; it grows, and what was beyond its edge repeats it."""
    height, width = image.shape[:2]
    matrix = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 1), np.float64)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    grown = round(height * sine + width * cosine), round(height * cosine + width * sine)
    matrix[:, 2] += (np.array(grown, float) - np.array((width, height), float)) / 2
    return np.asarray(cv2.warpAffine(image, matrix, grown, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def stretched(image: Image, times: float) -> Image:
    """Make a photo `times` as wide, as a stream is shown whose pixels are taken for squares."""
    size = max(1, round(image.shape[1] * times)), image.shape[0]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


SUNGLASSES = 0.42
"""Radius of a dark lens, in eye distances."""


def with_sunglasses(image: Image, landmarks: FloatArray) -> Image:
    """Put black sunglasses on a face with landmarks (5, 2)."""
    drawn_on = image.copy()
    left, right = landmarks[0].astype(float), landmarks[1].astype(float)
    apart = float(np.hypot(*(right - left)))
    angle_deg = float(np.degrees(np.arctan2(*(right - left)[::-1])))
    for x, y in (left, right):
        axes = round(SUNGLASSES * apart), round(0.8 * SUNGLASSES * apart)
        cv2.ellipse(drawn_on, (round(x), round(y)), axes, angle_deg, 0, 360, (18, 15, 15), -1, cv2.LINE_AA)
    ends = [tuple(round(float(v)) for v in point) for point in (left, right)]
    cv2.line(drawn_on, ends[0], ends[1], (18, 15, 15), max(1, round(apart / 12)), cv2.LINE_AA)
    return drawn_on


def damages() -> list[Degradation]:
    """Return what makes faces look alike to an embedder; the first leaves the photo as it is.

    `roll` is in degrees, `stretched` times the width, `noise` in grey levels.
    """
    return [
        Degradation("clean", 0, _clean),
        *(
            Degradation("roll", roll, partial(_turned, angle_deg=roll), turn_deg=roll)
            for roll in (20.0, 30.0, 45.0, 60.0, 90.0, 180.0)
        ),
        Degradation("negative", 0, lambda image, face_px: np.asarray(255 - image, np.uint8)),
        *(Degradation("noise", levels, partial(_noise, noise_levels=levels)) for levels in (25.0, 40.0)),
        *(
            Degradation("stretched", times, partial(_stretched, times=times))
            for times in (0.5, 0.75, 1.33, 2.0)
        ),
        Degradation("sunglasses", 0, _clean, wear=with_sunglasses),
    ]


def _turned(image: Image, face_px: float, *, angle_deg: float) -> Image:
    return turned(image, angle_deg)


def _noise(image: Image, face_px: float, *, noise_levels: float) -> Image:
    return dim(image, 1.0, noise_levels)


def _stretched(image: Image, face_px: float, *, times: float) -> Image:
    return stretched(image, times)


def conditions() -> list[Degradation]:
    """Return what `edge evaluate conditions` tries; the first leaves the photo as it is.

    `dark` and `back-light` are times the levels, with noise of DARK_GAIN_NOISE; `noise` is in grey levels;
    the others are as in `degradations`.
    """
    noise = DARK_GAIN_NOISE
    return [
        Degradation("clean", 0, _clean),
        *(Degradation("dark", g, partial(_dim, gain=g)) for g in (0.25, 0.12, 0.06)),
        *(Degradation("back-light", g, partial(_back, gain=g)) for g in (0.5, 0.25)),
        Degradation("grey", 0, lambda image, face_px: grey(image)),
        Degradation("infrared", 0, lambda image, face_px: infrared(image, noise)),
        Degradation("jpeg", 20, partial(_jpeg, quality=20)),
        Degradation("blur", 3, partial(_blur, sigma=3.0)),
        Degradation("small", 32, partial(_small, wanted_px=32.0)),
        Degradation("noise", 16, lambda image, face_px: dim(image, 1.0, 16.0)),
    ]


def _dim(image: Image, face_px: float, *, gain: float) -> Image:
    return dim(image, gain, DARK_GAIN_NOISE)


def _back(image: Image, face_px: float, *, gain: float) -> Image:
    return before_bright_door(image, face_px, gain, DARK_GAIN_NOISE)


def _noisy(levels: NDArray[np.floating], image: Image, noise_levels: float, channels: int = 3) -> Image:
    """Return `levels` (H, W, 3) as pixels, with noise that follows from `image`."""
    if noise_levels > 0:
        generator = np.random.default_rng(zlib.crc32(image.tobytes()))
        levels = levels + generator.normal(0, noise_levels, (*levels.shape[:2], channels))
    return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def drawn(ways: Sequence[Degradation]) -> Degradation:
    """Return a degradation that spoils each photo in one of `ways`, drawn by its pixels: always the same one.

    Raises:
        ValueError: There is nothing to draw from.
    """
    if not ways:
        raise ValueError("no degradations to draw from")
    choice = tuple(ways)

    def spoil(image: Image, face_px: float) -> Image:
        return choice[zlib.crc32(image.tobytes()) % len(choice)].apply(image, face_px)

    return Degradation("drawn", 0, spoil)
