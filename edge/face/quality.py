"""Judge whether a shot of a face is worth an embedding, and how much it weighs as evidence.

Lifts a dark face first. Measures size, sharpness, pose, exposure and the detector's own score. Decides
nothing about visits.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.types import Detection, FloatArray, Image, Quality, Refusal
from edge.face.lighting import lift_of_face

NOSE_DEPTH = 0.5
"""How far the nose tip stands before the eyes, in eye distances, seen from above.

A head turned by yaw shows the nose off the middle of the eyes by NOSE_DEPTH * tan(yaw) eye distances.
"""

STEP_PX = 2
"""Each pixel of the crop is compared with those this far on either side of it: eyelids, brows and lips
answer, a blurred face does not."""

NOISE_SIGMA_PX = 1.0
"""The crop is smoothed by this Gaussian first, so that sensor noise does not pass for detail."""

SHARP_ENERGY = 30.0
"""Mean square of the weaker second difference, in squared grey levels, at which sharpness is one half.

Measured on spoiled lfw-dev photos (ORL): of shots under blur or motion at sharpness .12-.15 44 % (48 %) are
recognised, at .15-.20 54 % (68 %), above .30 93 % (95 %). The variance of the Laplacian, used before, takes
noise for detail and stays high along the edges that motion leaves: as a sign of a useful shot over all
degradations of `edge evaluate gate` its AUC is .67 (.74), that of this measure .78 (.84).
"""

INNER = np.s_[16:100, 16:96]
"""Rows and columns of an aligned crop that show the face and not what is behind it."""

MIDDLE = np.s_[30:100, 30:82]
"""Rows and columns of an aligned crop that hardly any background reaches: they say how dark the face is."""

DARK, BRIGHT = 25, 235
"""Luma below or above which a pixel shows no structure of a face."""

MIN_EXPOSURE = 0.2
"""Share of the face that must lie between DARK and BRIGHT. Loose, so that skin tone never decides.

Measured as above: between .20 and .25 every second shot is still recognised, below .20 one in four.
"""

HALF_SIZE_PX = 20.0
"""Face size at which a shot weighs half: from 16 to 20 px about every second one is still recognised."""

ENROLMENT_FACE_PX, ENROLMENT_SHARPNESS, ENROLMENT_EXPOSURE, ENROLMENT_LIFTED = 40.0, 0.35, 0.5, 1.0
"""Limits for a photo to be enrolled: a bad shot costs one look, a bad template every visit of its subject.

Measured: of 1,000 lfw-dev photos, 400 of ORL and the 42 of the demo these limits refuse none. With templates
from photos of 24 px faces TPIR falls from .958 to .815 at the product's threshold, from those under a 3 px
blur to .777, overexposed fourfold to .777. Nobody is enrolled from a face that had to be lifted: two people
that are both back-lit or both in deep night are taken for each other several times as often as promised.
"""


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Limits of a usable shot: size, sharpness, turn of the head, detector score, exposure, lifting.

    `refuses_covered` asks for a second embedding, which tells whether a mask covers the lower half.
    """

    min_face_px: float
    min_sharpness: float
    max_yaw_deg: float
    min_score: float
    min_exposure: float = MIN_EXPOSURE
    max_lifted: float = np.inf
    refuses_covered: bool = False

    def for_enrolment(self) -> "QualityGate":
        """Return the gate for photos to be enrolled: never looser than this one."""
        return replace(
            self,
            min_face_px=max(self.min_face_px, ENROLMENT_FACE_PX),
            min_sharpness=max(self.min_sharpness, ENROLMENT_SHARPNESS),
            min_exposure=max(self.min_exposure, ENROLMENT_EXPOSURE),
            max_lifted=min(self.max_lifted, ENROLMENT_LIFTED),
            refuses_covered=True,
        )

    def refuse(self, detection: Detection, frame_shape: tuple[int, ...]) -> Refusal | None:
        """Return why this face is not even worth aligning, or None. Costs microseconds."""
        if detection.score < self.min_score:
            return Refusal.SCORE
        if detection.size_px < self.min_face_px:
            return Refusal.SIZE
        height, width = frame_shape[:2]
        points = detection.landmarks
        if (points < 0).any() or (points[:, 0] >= width).any() or (points[:, 1] >= height).any():
            return Refusal.CROPPED
        if abs(yaw_deg(points)) > self.max_yaw_deg:
            return Refusal.POSE
        return None

    def measure(
        self, crop: Image, detection: Detection, refused: Refusal | None = None, lifted: float = 1.0
    ) -> Quality:
        """Measure an aligned crop (112, 112, 3), lifted by `lifted`; `refused` is what `refuse` said."""
        grey = np.asarray(cv2.cvtColor(crop[INNER], cv2.COLOR_BGR2GRAY), np.uint8)
        sharp = sharpness(grey)
        exposed = cv2.countNonZero(cv2.inRange(grey, DARK, BRIGHT)) / grey.size
        yaw = yaw_deg(detection.landmarks)
        size = detection.size_px / (detection.size_px + HALF_SIZE_PX)
        weight = detection.score**2 * size * sharp * exposed * float(np.cos(np.radians(yaw)))
        measured = Quality(
            face_px=detection.size_px,
            sharpness=sharp,
            yaw_deg=yaw,
            exposure=exposed,
            detector_score=detection.score,
            weight=max(weight, 1e-3),
            lifted=lifted,
        )
        return replace(measured, refused=refused or self.judge(measured))

    def judge(self, quality: Quality) -> Refusal | None:
        """Return why a shot that was measured before is refused by its size, sharpness or light, or None."""
        if quality.face_px < self.min_face_px:
            return Refusal.SIZE
        if quality.lifted > self.max_lifted:
            return Refusal.EXPOSURE
        if quality.sharpness < self.min_sharpness:
            return Refusal.BLUR
        return Refusal.EXPOSURE if quality.exposure < self.min_exposure else None


def lighten(crop: Image) -> tuple[Image, float]:
    """Lift an aligned crop (112, 112, 3) by the levels of its face; returns it and how far they were spread.

    A face that is bright enough stays as it is, and 1 is returned.
    """
    lift = lift_of_face(crop[MIDDLE])
    return (crop, 1.0) if lift is None else (lift.apply(crop), lift.factor)


def sharpness(grey: Image) -> float:
    """Return the sharpness in [0, 1) of a grey uint8 image of a face, alike for blur and for motion.

    It is the energy of the second difference along rows or along columns, whichever is weaker: motion leaves
    the edges along its own direction sharp, and only those.
    """
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), NOISE_SIGMA_PX), np.int16)
    energy = min(_detail(smooth), _detail(smooth.T))
    return energy / (energy + SHARP_ENERGY)


def _detail(smooth: NDArray[np.int16]) -> float:
    """Return the mean square of the second difference over 2 * STEP_PX, down the columns."""
    below, here, above = smooth[: -2 * STEP_PX], smooth[STEP_PX:-STEP_PX], smooth[2 * STEP_PX :]
    return float(np.square(below - 2 * here + above, dtype=np.float32).mean())


def width_ratio(landmarks: FloatArray) -> float:
    """Return how wide a face is for its height, from landmarks (5, 2), as if it looked into the camera.

    It is the distance of the eyes over that from eyes to mouth, with the turn of the head taken out. Measured
    on lfw-dev: 1.04, from .87 (2nd percentile) to 1.16 (98th).
    """
    eyes = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    down = float(np.linalg.norm(landmarks[3:].mean(axis=0) - landmarks[:2].mean(axis=0)))
    return eyes / max(1e-6, down * float(np.cos(np.radians(yaw_deg(landmarks)))))


def yaw_deg(landmarks: FloatArray) -> float:
    """Estimate the head's turn in degrees from landmarks (5, 2): 0 frontal, positive towards image right."""
    left_eye, right_eye, nose = landmarks[0], landmarks[1], landmarks[2]
    eyes = right_eye - left_eye
    squared = float(eyes @ eyes)
    if squared <= 0:
        return 90.0
    offset = float((nose - (left_eye + right_eye) / 2) @ eyes) / squared
    return float(np.degrees(np.arctan(offset / NOSE_DEPTH)))
