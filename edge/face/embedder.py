"""Turn a face into an embedding. Compares nothing and knows nobody."""

import cv2
import numpy as np

from edge.core.errors import ModelError
from edge.core.types import FloatArray, Image
from edge.face.align import align
from edge.face.manifest import Manifest
from edge.face.session import Session, self_test


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
        self.provider = session.provider

    def self_test(self) -> None:
        """Compare what the session that serves computes now with the golden file.

        Raises:
            ModelError: It computes something else.
        """
        self_test(self._session, self._manifest)

    def align(self, image: Image, landmarks: FloatArray) -> Image:
        """Cut the face with `landmarks` (5, 2) out of a BGR image as BGR uint8 (112, 112, 3)."""
        return align(image, landmarks, self._template, self._size)

    def embed(self, face: Image) -> FloatArray:
        """Embed an aligned BGR face; returns float32 (D,), unit norm.

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
        return np.asarray(vector / norm, np.float32)
