"""Find faces with YuNet: letterbox, run, decode, suppress. Follows nothing over time.

Source of the output layout: Wu et al., YuNet (2023) and the reference post-processing in OpenCV's
FaceDetectorYN, against which the tests compare.
"""

import cv2
import numpy as np

from edge.face.manifest import Manifest
from edge.face.session import Session
from edge.types import Detection, FloatArray, Image

STRIDES = (8, 16, 32)
INPUT_MULTIPLE_PX = 32
NMS_IOU = 0.3
"""Overlap above which two boxes are one face. Source: default of OpenCV's FaceDetectorYN."""

MAX_FACES = 64
"""Faces returned per frame, best first, so that a poster full of faces cannot stall the loop."""


class Detector:
    """YuNet over a session; frames are reduced so that the longer side is at most `max_side_px`.

    Frames are never enlarged. The input buffer is kept per frame size, so that a camera that keeps its
    resolution causes no allocation.
    """

    def __init__(self, session: Session, manifest: Manifest, *, max_side_px: int, min_score: float) -> None:
        self._session = session
        self._manifest = manifest
        self.model_id = manifest.model_id
        self.sha256 = manifest.sha256
        self._max_side_px = max_side_px
        self._min_score = min_score
        self._canvases: dict[tuple[int, int], Image] = {}

    def at(self, max_side_px: int) -> "Detector":
        """Return a detector on the same session that reduces images less or more."""
        return Detector(self._session, self._manifest, max_side_px=max_side_px, min_score=self._min_score)

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a BGR image (H, W, 3), best score first, in pixels of that image."""
        canvas, scale = self._letterbox(image)
        blob = np.asarray(cv2.dnn.blobFromImage(canvas), np.float32)
        outputs = dict(zip(self._session.output_names, self._session.run(blob), strict=True))
        boxes, landmarks, scores = _decode(outputs, canvas.shape[1], self._min_score)
        if not len(scores):
            return []
        boxes /= scale
        landmarks /= scale
        corners_wh = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
        kept = cv2.dnn.NMSBoxes(corners_wh.tolist(), scores.tolist(), self._min_score, NMS_IOU)
        return [Detection(boxes[i], landmarks[i], float(scores[i])) for i in kept[:MAX_FACES]]

    def _letterbox(self, image: Image) -> tuple[Image, float]:
        """Reduce onto a black canvas whose sides are multiples of 32; return it and the scale."""
        height, width = image.shape[:2]
        scale = min(1.0, self._max_side_px / max(height, width))
        inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
        size = (_round_up(inner_h), _round_up(inner_w))
        canvas = self._canvases.get(size)
        if canvas is None:
            self._canvases.clear()
            canvas = self._canvases.setdefault(size, np.zeros((*size, 3), np.uint8))
        cv2.resize(image, (inner_w, inner_h), dst=canvas[:inner_h, :inner_w], interpolation=cv2.INTER_LINEAR)
        return canvas, scale


def _round_up(side_px: int) -> int:
    return -(-side_px // INPUT_MULTIPLE_PX) * INPUT_MULTIPLE_PX


def _decode(
    outputs: dict[str, FloatArray], input_width: int, min_score: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Turn the grids into boxes (N, 4) xyxy, landmarks (N, 5, 2) and scores (N,) above `min_score`.

    Per cell: score = sqrt(cls * obj); centre = (cell + offset) * stride; size = exp(.) * stride;
    landmark = (cell + offset) * stride.
    """
    boxes, landmarks, scores = [], [], []
    for stride in STRIDES:
        cls = outputs[f"cls_{stride}"].reshape(-1)
        obj = outputs[f"obj_{stride}"].reshape(-1)
        score = np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))
        cells = np.flatnonzero(score >= min_score)
        if not len(cells):
            continue
        columns = input_width // stride
        origin = np.column_stack([cells % columns, cells // columns]).astype(np.float32)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)[cells]
        centre = (origin + box[:, :2]) * stride
        half = np.exp(box[:, 2:]) * (stride / 2)
        points = outputs[f"kps_{stride}"].reshape(-1, 5, 2)[cells]
        boxes.append(np.column_stack([centre - half, centre + half]))
        landmarks.append((origin[:, None] + points) * stride)
        scores.append(score[cells])
    if not scores:
        return np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
    return np.concatenate(boxes), np.concatenate(landmarks), np.concatenate(scores)
