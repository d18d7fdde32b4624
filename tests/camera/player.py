"""What the tests of cameras share: playing one to its end, and a clock that only the test moves."""

from datetime import UTC, datetime, timedelta

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


class FakeClock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return 1000.0 + self.passed_s
