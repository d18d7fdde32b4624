"""Is the face alive? Asks one network or several, the recommended ones or those that the operator brings.

Scores one shot; what a visit's shots mean together is `visit`'s business. Decides nothing and knows nobody.

The interface is MiniFASNet's. Source: Silent-Face-Anti-Spoofing by Minivision (2020), `generate_patches`
(box enlarged, moved into the frame, 80x80) and `functional.to_tensor` (BGR, 0-255, not divided); three
classes of which 1 is a live face. A second one is that of face-antispoof-onnx, `preprocess` (a square around
the box, mirrored at the frame's edge, RGB, 0-1, 128x128; two classes of which 0 is a live face).
"""

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.errors import ModelError, ModelIntegrityError, ModelShapeError
from edge.core.types import FloatArray, Image
from edge.face.manifest import ON_CPU, Fusion, Manifest, Provider, manifests_dir, read_manifest
from edge.face.session import Session, pattern, self_test
from edge.face.weights import load_verified

Corners = NDArray[np.float64]

SUM_TOLERANCE = 1e-2
"""How far the sum of what a network calls probabilities may be from 1; half floats stay below 2e-3."""


MAX_LOGIT = 30.0
"""Logits are cut here, on both sides: a probability of 1 in float32 has none. No threshold is as far out."""


class LivenessNetwork:
    """A liveness network over a session."""

    def __init__(self, session: Session, manifest: Manifest) -> None:
        """Take what the manifest declares.

        Raises:
            ModelError: The manifest is not that of a liveness model.
        """
        if manifest.liveness is None or manifest.input.size is None:
            raise ModelError(f"{manifest.name}: not a liveness model; correct liveness.model")
        self._session = session
        self._manifest = manifest
        self._input = manifest.input
        self._size = manifest.input.size
        self._head = manifest.liveness
        self.fusions = manifest.fusion
        self.name = manifest.name
        self.model_id = manifest.model_id
        self.sha256 = manifest.sha256

    @property
    def provider(self) -> str:
        """The execution provider in use, as onnxruntime calls it."""
        return self._session.provider

    def self_test(self) -> None:
        """Compare what the session that serves computes now with the golden file, where there is one.

        Raises:
            ModelError: It computes something else.
        """
        if self._manifest.golden is not None:
            self_test(self._session, self._manifest)

    def logit(self, image: Image, box: FloatArray) -> float:
        """Return the logarithm of the odds that the face in `box` (4,) of a BGR image is alive.

        Raises:
            ModelError: There is none: the network failed or answered with something that is no score.
        """
        return self.judge(self.crop(image, box))

    def crop(self, image: Image, box: FloatArray) -> Image:
        """Cut what the network sees of the face in `box` (4,): BGR uint8 of its input size.

        Raises:
            ModelError: The box is not finite.
        """
        if not np.isfinite(box).all():
            raise ModelError(f"{self.name}: the face has no finite box; run `edge models verify`")
        corners = box.astype(np.float64).reshape(2, 2)
        crop = self._mirrored if self._head.border == "reflect" else self._inside
        return crop(image, corners, np.maximum(corners[1] - corners[0], 1.0))

    def _inside(self, image: Image, corners: Corners, side: Corners) -> Image:
        """Enlarge the box, whose shape and centre stay; make it smaller or move it where it leaves the frame.

        Nothing is padded: a border would itself look like the edge of a print.
        """
        frame = np.array([image.shape[1], image.shape[0]], np.float64)
        half = min(self._head.crop_scale, *(frame / side)) * side / 2
        centre = np.clip(corners.mean(axis=0), half, np.maximum(half, frame - half))
        x1, y1 = np.floor(centre - half).astype(int).clip(0)
        x2, y2 = np.ceil(centre + half).astype(int)
        crop = cv2.resize(image[y1:y2, x1:x2], self._size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(crop, np.uint8)

    def _mirrored(self, image: Image, corners: Corners, side: Corners) -> Image:
        """Cut the square around the enlarged box; what is outside the frame is mirrored from inside."""
        frame = np.array([image.shape[1], image.shape[0]])
        length = max(1, int(min(self._head.crop_scale * side.max(), 2 * frame.max())))
        first = np.clip(corners.mean(axis=0), 0, frame - 1) - length / 2
        x, y = first.astype(int)
        x1, y1, x2, y2 = max(0, x), max(0, y), min(frame[0], x + length), min(frame[1], y + length)
        edges = (y1 - y, y + length - y2, x1 - x, x + length - x2)
        top, bottom, left, right = map(int, edges)
        crop = cv2.copyMakeBorder(image[y1:y2, x1:x2], top, bottom, left, right, cv2.BORDER_REFLECT_101)
        resampling = cv2.INTER_AREA if length > max(self._size) else cv2.INTER_LANCZOS4
        return np.asarray(cv2.resize(crop, self._size[::-1], interpolation=resampling), np.uint8)

    def judge(self, crop: Image) -> float:
        """Return the logarithm of the odds that what `crop` returned is alive, at most `MAX_LOGIT` from 0.

        Raises:
            ModelError: The network failed, or its answer is not finite or no probability.
        """
        mean = (self._input.mean,) * 3
        rgb = self._input.colour == "rgb"
        blob = cv2.dnn.blobFromImage(crop, scalefactor=self._input.scale, mean=mean, swapRB=rgb)
        return self._understand(self._session.run(np.asarray(blob, np.float32))[0])

    def _understand(self, output: FloatArray) -> float:
        values: NDArray[np.float64] = output.reshape(-1).astype(np.float64)
        if not np.isfinite(values).all():
            raise ModelError(f"{self.name}: the network answered with values that are not finite")
        if self._head.gives == "probabilities":
            if values.min() < 0 or values.max() > 1 or abs(values.sum() - 1) > SUM_TOLERANCE:
                raise ModelError(f'{self.name}: these are no probabilities; set liveness.gives = "logits"')
            values = np.log(np.maximum(values, np.exp(-2 * MAX_LOGIT)))
        others = np.delete(values, self._head.live_class)
        most = others.max()
        odds = values[self._head.live_class] - most - np.log(np.exp(others - most).sum())
        return float(np.clip(odds, -MAX_LOGIT, MAX_LOGIT))


class Liveness:
    """What one network says, or several together: the mean of their logits. `name` is the method in events.

    Where it was measured for these networks, `live_from` is the mean logit from which a face of a size counts
    as alive. It is subtracted, so that a score of .5 always means that threshold. Below `min_face_px` they
    cannot tell a live face from a picture, and there is no score.
    """

    def __init__(self, networks: Sequence[LivenessNetwork], measured: Fusion | None = None) -> None:
        """Join networks; `measured` says what is known about just these together."""
        self.networks = tuple(networks)
        self.name = "+".join(network.name for network in networks)
        self.model_id = "+".join(network.model_id for network in networks)
        self.min_face_px = 0.0 if measured is None else measured.min_face_px
        self._measured = measured

    def self_test(self) -> None:
        """Compare what the sessions that serve compute now with the golden files, where there are such.

        Raises:
            ModelError: One computes something else.
        """
        for network in self.networks:
            network.self_test()

    def live_from(self, face_px: float) -> float:
        """Return the mean logit from which a face of this size, its box's shorter side, counts as alive."""
        if self._measured is None:
            return 0.0
        return float(np.interp(face_px, self._measured.face_px, self._measured.live_from))

    def says_something(self, box: FloatArray) -> bool:
        """Say whether the face in `box` (4,) is large enough to be told from a picture."""
        return _shorter_side(box) >= self.min_face_px

    def score(self, image: Image, box: FloatArray) -> float | None:
        """Return how surely the face in `box` (4,) of a BGR image is alive, in [0, 1]; .5 is the threshold.

        None where the face is too small for an answer.

        Raises:
            ModelError: There is no score: a network failed or answered with something that is not one.
        """
        if self.min_face_px and not self.says_something(box):
            return None
        mean = sum(network.logit(image, box) for network in self.networks) / len(self.networks)
        return 1 / (1 + math.exp(self.live_from(_shorter_side(box)) - mean))


def _shorter_side(box: FloatArray) -> float:
    return float(min(box[2] - box[0], box[3] - box[1]))


def load_liveness(
    directories: Sequence[Path], models_dir: Path, *, threads: int, providers: Sequence[Provider] = ON_CPU
) -> Liveness:
    """Load one network or several: each in a directory of its own, or among the models of this package.

    Raises:
        ModelError: One line: what is wrong with a manifest, a file, its shapes or its answers.
    """
    networks = [load_network(each, models_dir, threads=threads, providers=providers) for each in directories]
    names = {network.name for network in networks}
    if len(names) < len(networks):
        raise ModelError("liveness.model: it names a model twice; leave one of them out")
    measured = [f for n in networks for f in n.fusions if {n.name, *f.others} == names]
    return Liveness(networks, measured[0] if measured else None)


def load_network(
    directory: Path, models_dir: Path, *, threads: int, providers: Sequence[Provider] = ON_CPU
) -> LivenessNetwork:
    """Load a network by the directory of its manifest.

    The file of one of this package's is in `models_dir`, that of the operator's own beside its manifest. It
    must answer the generated pattern with a score, and like its golden file where the manifest names one.

    Raises:
        ModelError: One line: what is wrong with the manifest, the file, its shapes or its answers.
    """
    directory = directory.resolve()
    manifest = read_manifest(directory / "manifest.toml")
    own = directory.parent != manifests_dir().resolve()
    if manifest.kind != "liveness":
        raise ModelError(f"{manifest.name}: of kind {manifest.kind}, not liveness; correct liveness.model")
    if own and (manifest.sources or manifest.build or manifest.url):
        raise ModelError(
            f"{manifest.name}: a liveness model of your own has no sources, build or url; remove them"
        )
    model = load_verified(manifest, manifest.directory if own else models_dir)
    try:
        session = Session.on_first(providers, manifest, model, threads=threads)
    except ModelShapeError as error:
        raise ModelShapeError(f"{manifest.name}: {error}; export it with fixed sizes, a batch of 1") from None
    except ModelError as error:
        raise ModelError(f"{manifest.name}: {error}; export it again, in one file") from None
    if manifest.golden is not None:
        try:
            self_test(session, manifest)
        except ModelError as error:
            what = str(error).rpartition(";")[0]
            raise ModelIntegrityError(f"{what}; correct the golden file, or its manifest") from None
    network = LivenessNetwork(session, manifest)
    height, width = network._size
    network.judge(np.ascontiguousarray(pattern(height, width)[0].transpose(1, 2, 0)).astype(np.uint8))
    return network
