"""Is the face alive? Asks a network that the operator brings: none is shipped, and none is fetched.

Scores one shot; what a visit's shots mean together is `visit`'s business. Decides nothing and knows nobody.

The interface is MiniFASNet's. Source: Silent-Face-Anti-Spoofing by Minivision (2020), `generate_patches`
(box enlarged 2.7 times, moved into the frame, 80x80) and `functional.to_tensor` (BGR, 0-255, not divided);
three classes of which 1 is a live face. Its authors add up two networks of different crops; here it is one.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.core.errors import ModelError, ModelIntegrityError, ModelShapeError
from edge.core.types import FloatArray, Image
from edge.face.manifest import Manifest, read_manifest
from edge.face.session import Session, pattern, self_test
from edge.face.weights import load_verified

SUM_TOLERANCE = 1e-2
"""How far the sum of what a network calls probabilities may be from 1; half floats stay below 2e-3."""


class Liveness:
    """A liveness network over a session. `name` is what events call the method."""

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
        self.name = manifest.name
        self.model_id = manifest.model_id
        self.sha256 = manifest.sha256

    def self_test(self) -> None:
        """Compare what the session that serves computes now with the golden file, where there is one.

        Raises:
            ModelError: It computes something else.
        """
        if self._manifest.golden is not None:
            self_test(self._session, self._manifest)

    def score(self, image: Image, box: FloatArray) -> float:
        """Return how likely the face in `box` (4,) of a BGR image is alive, in [0, 1].

        Raises:
            ModelError: There is no score: the network failed or answered with something that is not one.
        """
        return self.judge(self.crop(image, box))

    def crop(self, image: Image, box: FloatArray) -> Image:
        """Cut what the network sees of the face in `box` (4,): BGR uint8 of its input size.

        The box keeps its shape and centre and is enlarged; one that would leave the frame is first made
        smaller, then moved inside. Nothing is padded: a border would itself look like the edge of a print.

        Raises:
            ModelError: The box is not finite.
        """
        if not np.isfinite(box).all():
            raise ModelError(f"{self.name}: the face has no finite box; run `edge models verify`")
        frame = np.array([image.shape[1], image.shape[0]], np.float64)
        corners = box.astype(np.float64).reshape(2, 2)
        side = np.maximum(corners[1] - corners[0], 1.0)
        half = min(self._head.crop_scale, *(frame / side)) * side / 2
        centre = np.clip(corners.mean(axis=0), half, np.maximum(half, frame - half))
        x1, y1 = np.floor(centre - half).astype(int).clip(0)
        x2, y2 = np.ceil(centre + half).astype(int)
        crop = cv2.resize(image[y1:y2, x1:x2], self._size[::-1], interpolation=cv2.INTER_LINEAR)
        return crop.astype(np.uint8, copy=False)

    def judge(self, crop: Image) -> float:
        """Return the score in [0, 1] of what `crop` returned.

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
        if self._head.gives == "logits":
            values = np.exp(values - values.max())
            values /= values.sum()
        elif values.min() < 0 or values.max() > 1 or abs(values.sum() - 1) > SUM_TOLERANCE:
            raise ModelError(f'{self.name}: these are no probabilities; set liveness.gives = "logits"')
        return float(values[self._head.live_class])


def load_liveness(directory: Path, *, threads: int) -> Liveness:
    """Load the operator's model: `manifest.toml` and the file it names, both in `directory`.

    It must answer the generated pattern with a score, and like its golden file where the manifest names one.

    Raises:
        ModelError: One line: what is wrong with the manifest, the file, its shapes or its answers.
    """
    manifest = read_manifest(directory.resolve() / "manifest.toml")
    if manifest.kind != "liveness":
        raise ModelError(f"{manifest.name}: of kind {manifest.kind}, not liveness; correct liveness.model")
    model = load_verified(manifest, manifest.directory)
    try:
        session = Session(model, inputs=manifest.input, outputs=manifest.output, threads=threads)
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
    liveness = Liveness(session, manifest)
    height, width = liveness._size
    liveness.judge(np.ascontiguousarray(pattern(height, width)[0].transpose(1, 2, 0)).astype(np.uint8))
    return liveness
