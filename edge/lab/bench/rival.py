"""The loop a user would write instead: OpenCV's own detector and recognizer on every face of every frame.

Kept as short as tutorials show it. The bench measures the daemon's pipeline beside it, on the same frames.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.core.types import Image

SCORE = 0.7
NMS = 0.3


class OpenCVLoop:
    """FaceDetectorYN + FaceRecognizerSF with a dictionary of features; decides frame by frame."""

    def __init__(self, detector: Path, recognizer: Path, threshold: float) -> None:
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), SCORE, NMS)
        self._recognizer = cv2.FaceRecognizerSF.create(str(recognizer), "")
        self._threshold = threshold
        self._features: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}

    def enroll(self, subject: str, photo: Image) -> bool:
        """Remember the largest face of a photo; returns whether there was one."""
        faces = self._detect(photo)
        if len(faces):
            crop = self._recognizer.alignCrop(photo, max(faces, key=lambda face: face[2] * face[3]))
            self._features[subject] = np.array(self._recognizer.feature(crop), np.float32)
        return bool(len(faces))

    def process(self, image: Image) -> list[str | None]:
        """Return the subject of every face in a frame, None for strangers."""
        names: list[str | None] = []
        for face in self._detect(image):
            feature = self._recognizer.feature(self._recognizer.alignCrop(image, face))
            best, name = -1.0, None
            for subject, known in self._features.items():
                score = self._recognizer.match(feature, known, cv2.FaceRecognizerSF_FR_COSINE)
                if score > best:
                    best, name = score, subject
            names.append(name if best >= self._threshold else None)
        return names

    def run(self, frames: Sequence[Image]) -> set[str]:
        """Process frames and return the subjects seen."""
        return {name for frame in frames for name in self.process(frame) if name is not None}

    def _detect(self, image: Image) -> Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        self._detector.setInputSize((image.shape[1], image.shape[0]))
        faces = self._detector.detect(image)[1]
        return [] if faces is None else list(faces)
