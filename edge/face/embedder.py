"""Turn a face into an embedding: warp it onto the embedder's template, and run the network.

Compares nothing and knows nobody. The warp is the least-squares similarity (rotation, uniform scale, shift)
over the five landmarks. Measured (`edge evaluate variants`, lfw-dev, 8 halves by subject): a robust fit
(LMEDS) instead loses .0018 of TPIR at FPIR .003 with sface-int8 (worse in 7 halves, better in 1) and .0008
with sface-fp32 (4 and 3).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.errors import ModelError
from edge.core.types import FloatArray, Image
from edge.face.manifest import Manifest
from edge.face.quality import INNER
from edge.face.session import Session, self_test

LOWER_HALF = 0.58
"""Where the lower half of an aligned face begins, of its height: between the eyes and the tip of the nose.

Measured with sface-int8 on 301 masked photos, with a limit that .2 % of plain ones miss: at .49, .54, .58,
.62 and .67 of the height 77, 92, 95, 91 and 74 % of the masked ones are told.
"""

INNER_CORNERS = np.array(
    [(x, y) for y in (INNER[0].start, INNER[0].stop - 1) for x in (INNER[1].start, INNER[1].stop - 1)]
)
"""Column and row of the pixels in the corners of `INNER`."""

BLANK = 127
"""Grey level of what is blanked out: the middle of what the network takes."""


def similarity_transform(source: FloatArray, target: FloatArray) -> FloatArray:
    """Return the (2, 3) matrix that maps `source` points (N, 2) closest onto `target` points (N, 2).

    Closed form in complex numbers: with centred points, a = sum(conj(s) t) / sum(|s|^2) is rotation and
    scale at once. Source: Umeyama (1991) restricted to proper rotations in the plane.

    Raises:
        ValueError: All source points coincide.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    s = (source - source_mean).astype(np.float64) @ np.array([1, 1j])
    t = (target - target_mean).astype(np.float64) @ np.array([1, 1j])
    spread = float((s.conj() * s).real.sum())
    if not spread > 0:
        raise ValueError("landmarks coincide; no transform maps them")
    a = complex((s.conj() * t).sum() / spread)
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    shift = target_mean - linear @ source_mean
    return np.column_stack([linear, shift]).astype(np.float32)


def align(image: Image, landmarks: FloatArray, template: FloatArray, size: tuple[int, int]) -> Image:
    """Cut the face with `landmarks` (5, 2) out of a BGR image so that they come to lie on `template` (5, 2).

    Returns BGR uint8 of `size` (height, width); what lies outside the image is black.

    Raises:
        ValueError: All landmarks coincide.
    """
    matrix = similarity_transform(landmarks, template)
    crop = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)


class Embedder:
    """A face embedder over a session: aligns faces as its network was trained on, and embeds them.

    `model_id` names the weights; embeddings of different ids are never compared.
    """

    def __init__(self, session: Session, manifest: Manifest) -> None:
        """Take what the manifest declares.

        Raises:
            ModelError: The manifest is not that of an embedder with a fixed input size.
        """
        if manifest.alignment is None or manifest.input.size is None or manifest.output.dim is None:
            raise ModelError(f"{manifest.name}: not an embedder; choose one of `edge models list`")
        self._session = session
        self._manifest = manifest
        self._input = manifest.input
        self._size = manifest.input.size
        self._template = np.array(manifest.alignment.points, np.float32)
        self.model_id = manifest.model_id
        self.sha256 = manifest.sha256
        self.dim = manifest.output.dim

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime calls it."""
        return self._session.provider

    def self_test(self) -> None:
        """Compare what the session that serves computes now with the golden file.

        Raises:
            ModelError: It computes something else.
        """
        self_test(self._session, self._manifest)

    def visible(self, landmarks: FloatArray, frame_shape: tuple[int, ...]) -> float:
        """Return the share of a face with `landmarks` (5, 2) that lies inside a frame, in [0, 1].

        It is of the middle of the aligned face, `INNER`, that a frame's edge must not cut.

        Raises:
            ValueError: All landmarks coincide.
        """
        matrix = similarity_transform(self._template, landmarks)
        height, width = frame_shape[:2]

        def inside(points: NDArray[np.intp]) -> NDArray[np.bool_]:
            placed = points @ matrix[:, :2].T + matrix[:, 2]
            return np.asarray(((placed >= 0) & (placed <= (width - 1, height - 1))).all(axis=1))

        if inside(INNER_CORNERS).all():  # then all of it is
            return 1.0
        rows, columns = np.mgrid[INNER]
        return float(inside(np.stack([columns.ravel(), rows.ravel()], 1)).mean())

    def align(self, image: Image, landmarks: FloatArray) -> Image:
        """Cut the face with `landmarks` (5, 2) out of a BGR image as BGR uint8 (112, 112, 3)."""
        return align(image, landmarks, self._template, self._size)

    def embed(self, face: Image) -> tuple[FloatArray, float]:
        """Embed an aligned BGR face; returns float32 (D,), unit norm, and how long it was before.

        The length says how much of a face the network saw: see `recognisability`.

        Raises:
            ModelError: The network answered with zeros or non-finite values.
        """
        mean = (self._input.mean,) * 3
        rgb = self._input.colour == "rgb"
        blob = cv2.dnn.blobFromImage(face, scalefactor=self._input.scale, mean=mean, swapRB=rgb)
        vector = self._session.run(np.asarray(blob, np.float32))[0].reshape(-1)
        norm = float(np.linalg.norm(vector))
        if not 0 < norm < np.inf:
            raise ModelError(
                f"{self.model_id}: the embedder answered with norm {norm}; run `edge models verify`"
            )
        return np.asarray(vector / norm, np.float32), norm

    def lower_half_length(self, face: Image) -> float:
        """Return the length of the raw embedding of an aligned BGR face whose upper half is blanked out.

        Raises:
            ModelError: As for `embed`.
        """
        lower = face.copy()
        lower[: round(LOWER_HALF * face.shape[0])] = BLANK
        return self.embed(lower)[1]

    def is_covered(self, face: Image) -> bool:
        """Say whether the lower half of an aligned BGR face is hardly a face's: a mask, a scarf or a hand.

        False where the manifest does not say how long the embedding of a lower half is.

        Raises:
            ModelError: As for `embed`.
        """
        scale = self._manifest.recognisability
        if scale is None or scale.lower_half is None:
            return False
        return self.lower_half_length(face) < scale.lower_half

    def recognisability(self, length: float) -> float | None:
        """Return how sure the network was of a face whose raw embedding has this length, in [0, 1].

        None where the manifest has no [recognisability].
        """
        scale = self._manifest.recognisability
        return None if scale is None else scale.of(length)


class EmbedderPair(Embedder):
    """Two embedders whose answers are one vector: a second opinion inside the cosine.

    Both see the crop of the first one, whose template is the wider: for the second it is warped again, from
    template to template, instead of cut out of the picture. Measured on lfw-dev (5,581 photos): cosine .998
    to the other way, and the same accuracy.
    """

    def __init__(self, manifest: Manifest, first: tuple[Session, Manifest], second: tuple[Session, Manifest]):
        """Take the pair's manifest, and session and manifest of its parts.

        Raises:
            ModelError: One of the manifests is not that of an embedder, or that of no pair.
        """
        super().__init__(first[0], manifest)
        if manifest.pair is None or second[1].alignment is None:
            raise ModelError(f"{manifest.name}: not a pair of embedders")
        self._first, self._second = Embedder(*first), Embedder(*second)
        self._shares = [np.float32(np.sqrt(part.share)) for part in manifest.pair]
        self._rewarp = similarity_transform(self._template, self._second._template)

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime calls it; both, where the parts run on two."""
        return ", ".join(dict.fromkeys((self._first.provider, self._second.provider)))

    def self_test(self) -> None:
        """Compare what both sessions compute now with their golden files.

        Raises:
            ModelError: One computes something else.
        """
        self._first.self_test()
        self._second.self_test()

    def embed(self, face: Image) -> tuple[FloatArray, float]:
        """Embed an aligned BGR face; returns float32 (D,), unit norm, and how long the first answer was.

        Raises:
            ModelError: A network answered with zeros or non-finite values.
        """
        first, length = self._first.embed(face)
        height, width = self._second._size
        crop = cv2.warpAffine(face, self._rewarp, (width, height), flags=cv2.INTER_LINEAR)
        second, _ = self._second.embed(crop.astype(np.uint8, copy=False))
        return np.concatenate([self._shares[0] * first, self._shares[1] * second]), length

    def lower_half_length(self, face: Image) -> float:
        """Return what the first embedder says.

        Raises:
            ModelError: As for `embed`.
        """
        return self._first.lower_half_length(face)
