"""What the tests of cameras share: playing one to its end."""

from edge.camera.sources import Camera
from edge.core.types import Frame


def play(camera: Camera, limit: int = 10_000) -> list[Frame]:
    """Open, read at most `limit` frames, close."""
    frames: list[Frame] = []
    try:
        camera.open()
        while len(frames) < limit and (frame := camera.read()) is not None:
            frames.append(frame)
        return frames
    finally:
        camera.close()
