"""Judge whether a shot of a face is worth an embedding, and how much it weighs as evidence.

Measures size, sharpness, pose, exposure and the detector's own score. Does not decide about visits.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from edge.types import Detection, FloatArray, Image, Quality, Refusal

NOSE_DEPTH = 0.5
"""How far the nose tip stands before the eyes, in eye distances, seen from above.

A head turned by yaw shows the nose off the middle of the eyes by NOSE_DEPTH * tan(yaw) eye distances.
"""

SHARP_VARIANCE = 60.0
"""Variance of the Laplacian of a 112 px crop at which sharpness is one half.

Source: Pech-Pacheco et al. (2000) for the measure; the value lies between a still photo of a face
(above 200) and the same face under a 3 px Gaussian blur (below 20).
"""

DARK, BRIGHT = 25, 235
"""Luma below or above which a pixel shows no structure of a face."""

MIN_EXPOSURE = 0.25
"""Share of the face that must lie between DARK and BRIGHT. Loose, so that skin tone never decides."""

FULL_SIZE_PX = 112.0
"""Faces of the crop's own size or larger lose nothing by alignment."""


@dataclass(frozen=True, slots=True)
class QualityGate:
    """Limits below which a shot is refused: pixels, sharpness in [0, 1], degrees, detector score."""

    min_face_px: float
    min_sharpness: float
    max_yaw_deg: float
    min_score: float

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

    def measure(self, crop: Image, detection: Detection, refused: Refusal | None = None) -> Quality:
        """Measure an aligned crop (112, 112, 3); `refused` passes on what `refuse` said."""
        grey = np.asarray(cv2.cvtColor(crop[16:100, 16:96], cv2.COLOR_BGR2GRAY), np.uint8)
        sharp = sharpness(grey)
        exposed = cv2.countNonZero(cv2.inRange(grey, DARK, BRIGHT)) / grey.size
        yaw = yaw_deg(detection.landmarks)
        if refused is None and sharp < self.min_sharpness:
            refused = Refusal.BLUR
        if refused is None and exposed < MIN_EXPOSURE:
            refused = Refusal.EXPOSURE
        size = min(1.0, detection.size_px / FULL_SIZE_PX)
        weight = detection.score * size * float(np.cos(np.radians(yaw))) * (0.25 + 0.75 * sharp)
        return Quality(
            face_px=detection.size_px,
            sharpness=sharp,
            yaw_deg=yaw,
            exposure=exposed,
            detector_score=detection.score,
            weight=max(weight, 1e-3),
            refused=refused,
        )


def sharpness(grey: Image) -> float:
    """Return the sharpness in [0, 1) of a grey uint8 image, from the variance of its Laplacian."""
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    variance = float(deviation[0, 0]) ** 2
    return variance / (variance + SHARP_VARIANCE)


def yaw_deg(landmarks: FloatArray) -> float:
    """Estimate the head's turn in degrees from landmarks (5, 2): 0 frontal, positive towards image right."""
    left_eye, right_eye, nose = landmarks[0], landmarks[1], landmarks[2]
    eyes = right_eye - left_eye
    squared = float(eyes @ eyes)
    if squared <= 0:
        return 90.0
    offset = float((nose - (left_eye + right_eye) / 2) @ eyes) / squared
    return float(np.degrees(np.arctan(offset / NOSE_DEPTH)))
