"""How a camera is mounted: one that hangs upside down, on its side, or looks into a mirror is shown upright.

Faces are looked for afterwards, so that boxes, pictures and coordinates are all of the frame as it is shown.
"""

from dataclasses import replace

import cv2
import numpy as np

from edge.camera.buffers import FrameBuffers
from edge.camera.sources import Camera
from edge.core.types import Frame, Image

TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
"""OpenCV's names for turning a picture clockwise by so many degrees."""


def turned(image: Image, degrees: int) -> Image:
    """Return a picture turned clockwise by 0, 90, 180 or 270 degrees."""
    return image if degrees == 0 else np.asarray(cv2.rotate(image, TURNS[degrees]), np.uint8)


class MountedCamera:
    """A camera whose frames are turned clockwise by `rotate` degrees, and mirrored where `flip` is set."""

    def __init__(self, camera: Camera, *, rotate: int = 0, flip: bool = False) -> None:
        """Describe how `camera` is mounted; `rotate` is 0, 90, 180 or 270."""
        self._camera, self._rotate, self._flip = camera, rotate, flip
        self._turned, self._flipped = FrameBuffers(), FrameBuffers()
        self.description, self.live, self.paced = camera.description, camera.live, camera.paced

    def open(self) -> None:
        """Connect. Raises: CameraError."""
        self._camera.open()

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end of a clip. Raises: CameraError."""
        frame = self._camera.read()
        if frame is None:
            return None
        image = frame.image
        if self._rotate:
            image = np.asarray(cv2.rotate(image, TURNS[self._rotate], self._turned.free()), np.uint8)
            self._turned.keep(image)
        if self._flip:
            image = np.asarray(cv2.flip(image, 1, self._flipped.free()), np.uint8)
            self._flipped.keep(image)
        return replace(frame, image=image)

    def interrupt(self) -> None:
        """Ask `open` and `read` to give up soon; from any thread."""
        self._camera.interrupt()

    def close(self) -> None:
        """Let go of the device."""
        self._camera.close()
