"""FrameBuffers: memory for the frames of one camera, used again once nobody holds the frame in it.

Fresh memory for every frame costs more than its decoding: it is mapped, filled with zeros page by page, and
given back. Knows no camera.
"""

import sys

import numpy as np

from edge.core.types import Image

COUNT = 4
"""One is being filled, one waits to be taken, one is looked at, one is being copied for a snapshot."""


class FrameBuffers:
    """Up to `count` images of one size. Used by one thread; who holds an image may be anywhere.

    An image is free while only this list refers to it. Whoever has a frame, or a view of its pixels, holds a
    reference to the image, and nobody can get one without having one: so a free image stays free. Where more
    are held than there are, further ones are made and forgotten.
    """

    def __init__(self, count: int = COUNT) -> None:
        self._count = count
        self._images: list[Image] = [np.empty(0, np.uint8)]
        self._alone = self._references(0)
        self._images.clear()

    def free(self) -> Image | None:
        """Return an image that may be written to; None: make a new one, and tell `keep`."""
        for index in range(len(self._images)):
            if self._references(index) == self._alone:
                return self._images[index]
        return None

    def keep(self, image: Image) -> None:
        """Note an image that was just filled; one of another size takes the place of all others."""
        if self._images and self._images[0].shape != image.shape:
            self._images = []
        if len(self._images) < self._count and not any(image is known for known in self._images):
            self._images.append(image)

    def _references(self, index: int) -> int:
        return sys.getrefcount(self._images[index])
