"""Judge whether a shot of a face is worth an embedding, and how much it weighs as evidence.

Lifts a dark face first. Measures size, sharpness, pose, exposure and the detector's own score. Decides
nothing about visits.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.types import Detection, FloatArray, Image, Quality, Refusal
from edge.face.lighting import glare_over, lift_of_face, without_glare

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

LEAST_WEIGHT = 1e-3
"""A shot that was taken always counts a little."""

HALF_SIZE_PX = 20.0
"""Face size at which a shot weighs half: from 16 to 20 px about every second one is still recognised."""

ENROLMENT_FACE_PX, ENROLMENT_SHARPNESS, ENROLMENT_EXPOSURE, ENROLMENT_LIFTED = 40.0, 0.45, 0.5, 1.0
"""Limits for a photo to be enrolled: a bad shot costs one look, a bad template every visit of its subject.

Measured: of 1,260 lfw-dev photos these limits refuse 6 as blurred and 4 as back-lit, of 400 of ORL and the
42 of the demo none. With templates from photos of 24 px faces TPIR falls from .958 to .815 at the product's
threshold, from those under a 3 px blur to .777, overexposed fourfold to .777. Nobody is enrolled from a
face that had to be lifted: two people that are both back-lit or both in deep night are taken for each other
several times as often as promised. So are two that are both blurred, or both before something bright: of
260 photos under a blur of 3 px 26 can be enrolled (104 at a sharpness of .35), of heads at half the levels
before a bright door 7 (228).
"""

DIM_BELOW, DIM_SHARE = 122, 0.05
"""Luma that this share of a face reaches in a well lit photo: of 258 lfw-dev photos the dimmest has 122."""

GLARE_REACHES = 0.5
"""A dim face is back-lit where the glare over its edge comes up to this share of its own brightest.

Of 120 photos of adults of each group of UTKFace both are 2 white, 3 black, no Asian and 1 Indian; dim alone
are 4, 11, 1 and 1. Skin tone must not decide, so dim alone is no reason.
"""

BACK_LIT_EXPOSURE = 0.45
"""Factor of the exposure of such a face: below ENROLMENT_EXPOSURE with it, and above MIN_EXPOSURE still."""


MIN_RECOGNISABILITY = 0.01
"""A shot of which the embedder is less sure is no evidence.

Measured on spoiled photos of ORL: of shots below, which pass all other limits, 12 % are named rightly, of all
others 90 %. Strangers in such shots are not taken for subjects with good templates more often than promised.
"""

ENROLMENT_RECOGNISABILITY = 0.3
"""The same for a photo to be enrolled. Of 495 lfw-dev photos that pass the other limits it refuses 1.6 %."""

ENROLMENT_TILT_DEG, ENROLMENT_VISIBLE = 25.0, 0.85
"""Tilt of a head past which its landmarks are not trusted, and share of a face that has to be in the photo.

Measured: heads tilted by 30 degrees are taken for each other 1.3 times as often as promised at 1e-3, by 45
degrees five times. Of 310 photos of ORL, lfw-dev and UTKFace two show less of their face; a fifth cut off
takes .1 of cosine.
"""

EYES = np.s_[44:60, 28:49], np.s_[44:60, 63:84]
CHEEKS = np.s_[66:84, 26:42], np.s_[66:84, 70:86], np.s_[60:72, 50:62]
"""Where an aligned crop shows the eyes, and the cheeks and the bridge of the nose."""

ENROLMENT_NOISE = 7.0
"""Grey levels of noise in an aligned face above which it is not enrolled.

Measured with `noise_levels`: 397 plain faces of lfw-dev have up to 4.2, with noise of 25 levels in the photo
98 % have 7.9 and more. Faces in noise of 40 levels on both sides are taken for each other 46 times as often
as promised at 1e-3.
"""

FAR_EYE_DEG = 25.0
"""Turn of a head past which its farther eye is not judged."""

DARK_GLASSES = 0.32
"""Luma of the brighter eye over that of the cheeks, medians, below which sunglasses cover both.

Measured: 12 of 2,364 lfw-dev photos are below, of which 11 show sunglasses, and 3 of 2,498 of adults in
UTKFace; black glasses drawn on faces have .07-.24. Strangers in sunglasses are taken for each other 17 times
as often as promised at 1e-3.
"""


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Limits of a usable shot: size, sharpness, turn and tilt of the head, detector score, exposure, lifting.

    `min_visible` is the share of the face inside the frame, `min_recognisability` judges what was embedded.
    `refuses_covered` looks for sunglasses and noise, and asks for a second embedding, which tells whether a
    mask covers the lower half.
    """

    min_face_px: float
    min_sharpness: float
    max_yaw_deg: float
    min_score: float
    min_exposure: float = MIN_EXPOSURE
    max_lifted: float = np.inf
    refuses_covered: bool = False
    min_recognisability: float = MIN_RECOGNISABILITY
    max_tilt_deg: float = np.inf
    min_visible: float = 0.0

    def for_enrolment(self) -> "QualityGate":
        """Return the gate for photos to be enrolled: never looser than this one."""
        return replace(
            self,
            min_face_px=max(self.min_face_px, ENROLMENT_FACE_PX),
            min_sharpness=max(self.min_sharpness, ENROLMENT_SHARPNESS),
            min_exposure=max(self.min_exposure, ENROLMENT_EXPOSURE),
            max_lifted=min(self.max_lifted, ENROLMENT_LIFTED),
            refuses_covered=True,
            min_recognisability=max(self.min_recognisability, ENROLMENT_RECOGNISABILITY),
            max_tilt_deg=min(self.max_tilt_deg, ENROLMENT_TILT_DEG),
            min_visible=max(self.min_visible, ENROLMENT_VISIBLE),
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
        return Refusal.TILT if abs(roll_deg(points)) > self.max_tilt_deg else None

    def measure(
        self, crop: Image, detection: Detection, refused: Refusal | None = None, lifted: float = 1.0
    ) -> Quality:
        """Measure an aligned crop (112, 112, 3), lifted by `lifted`; `refused` is what `refuse` said."""
        grey = np.asarray(cv2.cvtColor(crop[INNER], cv2.COLOR_BGR2GRAY), np.uint8)
        sharp = sharpness(grey)
        exposed = cv2.countNonZero(cv2.inRange(grey, DARK, BRIGHT)) / grey.size
        if is_back_lit(crop):
            exposed *= BACK_LIT_EXPOSURE
        yaw = yaw_deg(detection.landmarks)
        size = detection.size_px / (detection.size_px + HALF_SIZE_PX)
        weight = detection.score**2 * size * sharp * exposed * float(np.cos(np.radians(yaw)))
        measured = Quality(
            face_px=detection.size_px,
            sharpness=sharp,
            yaw_deg=yaw,
            exposure=exposed,
            detector_score=detection.score,
            weight=max(weight, LEAST_WEIGHT),
            lifted=lifted,
        )
        return replace(measured, refused=refused or self.judge(measured))

    def recognised(self, quality: Quality, recognisability: float | None) -> Quality:
        """Return the quality of a shot that was embedded: it weighs less, the less sure the embedder was.

        Measured on spoiled shots that pass the gate, useful over useless (AUC): ORL .90, without it .58.
        """
        if recognisability is None:
            return quality
        weight = max(quality.weight * recognisability, LEAST_WEIGHT)
        known = replace(quality, recognisability=recognisability, weight=weight)
        return replace(known, refused=known.refused or self.judge(known))

    def judge(self, quality: Quality) -> Refusal | None:
        """Return why a shot that was measured before is refused, or None.

        By its size, light, sharpness and, where it was embedded, its recognisability.
        """
        if quality.face_px < self.min_face_px:
            return Refusal.SIZE
        if quality.lifted > self.max_lifted:
            return Refusal.EXPOSURE
        if quality.sharpness < self.min_sharpness:
            return Refusal.BLUR
        if quality.exposure < self.min_exposure:
            return Refusal.EXPOSURE
        sure = quality.recognisability
        return Refusal.RECOGNISABILITY if sure is not None and sure < self.min_recognisability else None


def lighten(crop: Image) -> tuple[Image, float]:
    """Lift an aligned crop (112, 112, 3) by the levels of its face; returns it and how far they were spread.

    A face that is bright enough stays as it is, and 1 is returned. Of a dark one before something bright the
    glare is taken away first.
    """
    lift = lift_of_face(crop[MIDDLE])
    if lift is None:
        return crop, 1.0
    glare = glare_over(crop)
    if _edge(glare) > _brightest(_middle(crop)):
        crop = without_glare(crop, glare, MIDDLE)
        lift = lift_of_face(crop[MIDDLE]) or lift
    return lift.apply(crop), lift.factor


def is_back_lit(crop: Image) -> bool:
    """Return whether an aligned face (112, 112, 3) is dim and stands before something bright."""
    grey = _middle(crop)
    if cv2.countNonZero(cv2.inRange(grey, DIM_BELOW, 255)) >= DIM_SHARE * grey.size:
        return False
    return _edge(glare_over(crop)) > GLARE_REACHES * _brightest(grey)


def _middle(crop: Image) -> Image:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(crop[MIDDLE]), cv2.COLOR_BGR2GRAY), np.uint8)


def _brightest(grey: Image) -> float:
    """Return the luma that DIM_SHARE of the middle of a face reaches, at least 1."""
    return max(1.0, float(np.quantile(grey, 1 - DIM_SHARE)))


def _edge(glare: FloatArray) -> float:
    """Return the level that DIM_SHARE of the glare over a face reaches."""
    return float(np.quantile(glare, 1 - DIM_SHARE))


def eye_shade(crop: Image, yaw_deg: float = 0.0) -> float:
    """Return how bright the brighter eye of an aligned crop (112, 112, 3) is, in times of the cheeks.

    Of a head that is turned further than FAR_EYE_DEG it is the nearer eye: the other one may be background.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)
    cheeks = float(np.median(np.concatenate([grey[part].ravel() for part in CHEEKS])))
    eyes = EYES if abs(yaw_deg) <= FAR_EYE_DEG else EYES[:1] if yaw_deg > 0 else EYES[1:]
    return max(float(np.median(grey[eye])) for eye in eyes) / max(1.0, cheeks)


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


def roll_deg(landmarks: FloatArray) -> float:
    """Return the tilt of a head in degrees from landmarks (5, 2): 0 upright, positive clockwise."""
    across, up = (landmarks[0] + landmarks[1] - landmarks[3] - landmarks[4]).astype(float)
    return float(np.degrees(np.arctan2(across, -up)))


def yaw_deg(landmarks: FloatArray) -> float:
    """Estimate the head's turn in degrees from landmarks (5, 2): 0 frontal, positive towards image right."""
    left_eye, right_eye, nose = landmarks[0], landmarks[1], landmarks[2]
    eyes = right_eye - left_eye
    squared = float(eyes @ eyes)
    if squared <= 0:
        return 90.0
    offset = float((nose - (left_eye + right_eye) / 2) @ eyes) / squared
    return float(np.degrees(np.arctan(offset / NOSE_DEPTH)))
