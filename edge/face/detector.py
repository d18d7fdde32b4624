"""Find faces with YuNet: letterbox, lift what is dark, run, decode, suppress. Follows nothing over time.

Source of the output layout: Wu et al., YuNet (2023) and the reference post-processing in OpenCV's
FaceDetectorYN, against which the tests compare; the heads of a stride are joined by `edge.face.build.heads`.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from edge.core.errors import ModelShapeError
from edge.core.types import Detection, FloatArray, Image
from edge.face.lighting import lift_of_scene
from edge.face.manifest import Manifest
from edge.face.quality import roll_deg
from edge.face.session import Session, self_test

STRIDES = (8, 16, 32)
"""Of the feature maps, in pixels of the input."""

INPUT_MULTIPLE_PX = 32
"""The largest stride: sides of the input are multiples of it."""

NMS_IOU = 0.3
"""Overlap above which two boxes are one face. Source: default of OpenCV's FaceDetectorYN."""

REFINE_BELOW_PX = 30.0
"""Faces smaller than this on the detector's input have their landmarks found again.

Measured on lfw-dev photos in 1280x720 frames at a width of 320: TPIR of 60 px faces .86 becomes .99; above 30
px on the input nothing is gained.
"""

REFINE_SIDE_PX = 160
"""Longer side of the neighbourhood of a face, two faces wide, when its landmarks are found again."""

UPRIGHT_WITHIN_DEG = 3.0
"""A face that is tilted further by its landmarks is turned upright and looked at again.

Of upright photos every third is, which costs .5 ms a shot on average. From 6 degrees on it would be .05 ms,
and faces turned by 45 degrees be taken for each other 17 times as often as promised at 1e-3, and not 5 times.
"""

UNDERSTATED = 1.5
"""How many times as far it is turned as its landmarks say: YuNet sees about half of a tilt."""

UPRIGHT_LOOKS = 2
"""How often, at 1 ms each.

Measured on lfw-dev photos turned by 20 / 30 / 40 degrees with sface-int8: median cosine to the face as it
was .95 / .94 / .94; without .81 / .52 / .30; with one look that takes the landmarks at their word .92 / .82 /
.61. A third look gains nothing.
"""

MAX_FACES = 64
"""Faces returned per frame, best first, so that a poster full of faces cannot stall the loop."""

LIGHT_STEP = 4
"""Whether a picture is dark is judged by every fourth pixel of every fourth line of the detector's input."""

CHANNELS = 16
"""Values per cell: the logits of cls and obj, four of the box, two for each of five landmarks."""


@dataclass(slots=True, eq=False)
class Canvas:
    """Where frames of one size are laid out for the network. Kept: fresh memory costs more than filling it.

    Measured at 320x256: .035 ms to fill `blob` through `planes`, .13 to .98 for OpenCV's blobFromImage.
    """

    image: Image
    inner: tuple[int, int] = (0, 0)
    """The (height, width) that the last frame took; beyond it all is black."""
    planes: list[Image] = field(init=False)
    blob: FloatArray = field(init=False)
    grids: dict[str, tuple[int, ...]] = field(init=False)
    """The shape of each output for an input of this size."""

    def __post_init__(self) -> None:
        height, width = self.image.shape[:2]
        self.planes = [np.empty((height, width), np.uint8) for _ in range(3)]
        self.blob = np.empty((1, 3, height, width), np.float32)
        self.grids = {f"head_{side}": (1, CHANNELS, height // side, width // side) for side in STRIDES}

    def inside(self, height: int, width: int) -> Image:
        """Return the part that a frame of this size is to fill, the rest black."""
        if (height, width) != self.inner:
            self.image[height:], self.image[:, width:] = 0, 0
            self.inner = (height, width)
        return self.image[:height, :width]

    def fill_blob(self) -> FloatArray:
        """Return the image as float32 (1, 3, H, W), valid until the next call."""
        cv2.split(self.image, self.planes)
        for plane, channel in zip(self.planes, self.blob[0], strict=True):
            np.copyto(channel, plane)
        return self.blob


class Detector:
    """YuNet over a session; frames are reduced so that the longer side is at most `max_side_px`.

    Frames are never enlarged. The input buffers are kept per size, so that a camera that keeps its resolution
    causes no allocation.
    """

    def __init__(self, session: Session, manifest: Manifest, *, max_side_px: int, min_score: float) -> None:
        """Take a session of a model with YuNet's joined heads; `min_score` lies in (0, 1].

        Raises:
            ModelShapeError: The model has other outputs.
        """
        if missing := {f"head_{stride}" for stride in STRIDES} - set(session.output_names):
            raise ModelShapeError(
                f"{manifest.name}: a detector needs the output {min(missing)}, this one gives "
                f'{", ".join(session.output_names)}; set recognition.detector = "yunet"'
            )
        self._session = session
        self._manifest = manifest
        self.model_id = manifest.model_id
        self.sha256 = manifest.sha256
        self._max_side_px = max_side_px
        self._min_score = min_score
        self._canvas: Canvas | None = None
        self._near: Detector | None = None

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime calls it."""
        return self._session.provider

    def at(self, max_side_px: int, *, min_score: float | None = None) -> "Detector":
        """Return a detector on the same session that reduces images less or more, or believes more."""
        return Detector(
            self._session,
            self._manifest,
            max_side_px=max_side_px,
            min_score=self._min_score if min_score is None else min_score,
        )

    def reduction(self, image: Image) -> float:
        """Return the factor, at most 1, by which the sides of an image are reduced."""
        return float(min(1.0, self._max_side_px / max(image.shape[:2])))

    def self_test(self) -> None:
        """Compare what the session that serves computes now with the golden file.

        Raises:
            ModelError: It computes something else.
        """
        self_test(self._session, self._manifest)

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a BGR image (H, W, 3), best score first, in pixels of that image."""
        return self._find(image, self._min_score)

    def search(self, image: Image, doubtful_from: float) -> tuple[list[Detection], list[Detection]]:
        """Return the faces in an image, as `detect` does, and what might be one from a lower score on."""
        found = self._find(image, min(doubtful_from, self._min_score))
        faces = [face for face in found if face.score >= self._min_score]
        return faces, found[len(faces) :]

    def _find(self, image: Image, min_score: float) -> list[Detection]:
        canvas, scale = self._letterbox(image)
        answer = self._session.run(canvas.fill_blob(), canvas.grids)
        outputs = dict(zip(self._session.output_names, answer, strict=True))
        boxes, landmarks, scores = _decode(outputs, min_score)
        if not len(scores):
            return []
        boxes /= scale
        landmarks /= scale
        corners_wh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(corners_wh.tolist(), scores.tolist(), min_score, NMS_IOU)
        return [Detection(boxes[i], landmarks[i], float(scores[i])) for i in kept[:MAX_FACES]]

    def refine(self, image: Image, face: Detection) -> Detection:
        """Look again at the landmarks of one face: at its full resolution, and upright where it is tilted.

        Returns `face` itself where it was seen large enough and upright, or where nothing is found this time.
        """
        return self._set_upright(image, self._nearer(image, face))

    def _nearer(self, image: Image, face: Detection) -> Detection:
        """Look again at a face that was small where the frame had been reduced."""
        scale = self.reduction(image)
        if scale == 1.0 or face.size_px * scale >= REFINE_BELOW_PX:
            return face
        middle = _middle(face.box)
        reach = float(max(face.box[2:] - face.box[:2]))
        x1, y1 = np.maximum(0, middle - reach).astype(int)
        x2, y2 = np.ceil(middle + reach).astype(int)
        found = self._close().detect(image[y1:y2, x1:x2])
        moved = (moved_by(f, int(x1), int(y1)) for f in found)
        return next((f for f in moved if _distance(_middle(f.box), middle) < reach / 4), face)

    def _set_upright(self, image: Image, face: Detection) -> Detection:
        """Turn the neighbourhood of a tilted face, look for its landmarks there, and turn these back."""
        landmarks, turned_deg = face.landmarks, 0.0
        middle = _middle(face.box)
        reach = float(max(face.box[2:] - face.box[:2]))
        scale = min(1.0, REFINE_SIDE_PX / (2 * reach))
        side = max(1, round(2 * reach * scale))
        for _ in range(UPRIGHT_LOOKS):
            tilt_deg = roll_deg(landmarks) - turned_deg
            if abs(tilt_deg) < UPRIGHT_WITHIN_DEG:
                break
            turned_deg += UNDERSTATED * tilt_deg
            turn = np.asarray(cv2.getRotationMatrix2D(tuple(map(float, middle)), turned_deg, scale))
            turn[:, 2] = turn[:, 2] + side / 2 - middle
            cut = cv2.warpAffine(image, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
            found = self._close().detect(np.asarray(cut, np.uint8))
            centre = np.full(2, side / 2, np.float32)
            near = next((f for f in found if _distance(_middle(f.box), centre) < side / 8), None)
            if near is None:
                break
            back = cv2.invertAffineTransform(turn)
            landmarks = np.asarray(near.landmarks @ back[:, :2].T + back[:, 2], np.float32)
        return face if landmarks is face.landmarks else Detection(face.box, landmarks, face.score)

    def _close(self) -> "Detector":
        if self._near is None:
            self._near = self.at(REFINE_SIDE_PX)
        return self._near

    def _letterbox(self, image: Image) -> tuple[Canvas, float]:
        """Reduce onto a black canvas whose sides are multiples of 32, lifted where the picture is dark.

        Returns it and the scale.
        """
        height, width = image.shape[:2]
        scale = self.reduction(image)
        inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
        outer = (_round_up(inner_h), _round_up(inner_w))
        canvas = self._canvas
        if canvas is None or canvas.image.shape[:2] != outer:
            canvas = self._canvas = Canvas(np.zeros((*outer, 3), np.uint8))
        inside = canvas.inside(inner_h, inner_w)
        cv2.resize(image, (inner_w, inner_h), dst=inside, interpolation=cv2.INTER_LINEAR)
        if (lift := lift_of_scene(inside, LIGHT_STEP)) is not None:
            inside[:] = lift.apply(inside)
        return canvas, scale


def moved_by(face: Detection, x: int, y: int) -> Detection:
    """Return a face found in a part of a frame whose left upper corner is (x, y), in pixels of the frame."""
    shift = np.array([x, y, x, y], np.float32)
    return Detection(face.box + shift, face.landmarks + shift[:2], face.score)


def _middle(box: FloatArray) -> FloatArray:
    return np.asarray((box[:2] + box[2:]) / 2, np.float32)


def _distance(a: FloatArray, b: FloatArray) -> float:
    return float(np.abs(a - b).max())


def _round_up(side_px: int) -> int:
    return -(-side_px // INPUT_MULTIPLE_PX) * INPUT_MULTIPLE_PX


def _decode(outputs: dict[str, FloatArray], min_score: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Turn the grids into boxes (N, 4) xyxy, landmarks (N, 5, 2) and scores (N,) of at least `min_score`.

    Per cell: score = sqrt(sigmoid(cls) * sigmoid(obj)); centre = (cell + offset) * stride; size = exp(.) *
    stride; landmark = (cell + offset) * stride.
    """
    heads = [outputs[f"head_{stride}"] for stride in STRIDES]
    values = np.concatenate([head.reshape(CHANNELS, -1) for head in heads], axis=1)
    # score ** 2 <= sigmoid(x) < exp(x) for either logit x: nearly all cells (and NaN) go without a sigmoid.
    cells = np.flatnonzero(np.minimum(values[0], values[1]) >= 2 * math.log(min_score))
    if not len(cells):
        return np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
    score = np.exp(-0.5 * np.logaddexp(0, -values[:2, cells]).sum(axis=0))
    cells, score = cells[score >= min_score], score[score >= min_score]
    origin, stride = (each[cells] for each in _cells(tuple(head.shape[2:] for head in heads)))
    found = values[:, cells].T
    centre = (origin + found[:, 2:4]) * stride
    half = np.exp(found[:, 4:6]) * (stride / 2)
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    landmarks = (origin[:, None] + found[:, 6:].reshape(-1, 5, 2)) * stride[:, None]
    return boxes, landmarks, score


@lru_cache(maxsize=16)
def _cells(grids: tuple[tuple[int, ...], ...]) -> tuple[FloatArray, FloatArray]:
    """Return column and row (N, 2) and stride (N, 1) of the cells of grids (rows, columns), one a stride."""
    origins = [np.indices(grid, np.float32)[::-1].reshape(2, -1).T for grid in grids]
    strides = [
        np.full((rows * columns, 1), s, np.float32) for s, (rows, columns) in zip(STRIDES, grids, strict=True)
    ]
    return np.concatenate(origins), np.concatenate(strides)
