"""Pictures that leave the device as `camera/<c>/snapshot`: only where a camera's `snapshot` says so.

At a decision, and as the answer to the command `snapshot`; never in privacy mode.
"""

import queue
from collections.abc import Callable

from edge.camera.photo import small_jpeg
from edge.core.clock import Clock
from edge.core.errors import PhotoError
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.core.types import EventType, FaceEvent, Frame, Image
from edge.device.settings.load import Settings

MAX_BYTES = 256 * 1024
"""Of a picture; some 100 kB are usual."""

TRIED = ((960, 80), (960, 60), (720, 60), (480, 50))
"""Longer side in pixels and JPEG quality of 100, tried in turn."""

PER_S, AT_ONCE = 0.5, 3
"""Pictures of one camera on the topic: what comes beyond is dropped and counted."""

MOST_WAITING = 4
"""Frames that wait to be made pictures of."""


def snapshot_jpeg(image: Image) -> bytes:
    """Return a picture that may leave the device, as JPEG of at most `MAX_BYTES`.

    Raises:
        PhotoError: It cannot be made so small.
    """
    jpeg = small_jpeg(image, TRIED, MAX_BYTES)
    if jpeg is None:
        raise PhotoError(f"the picture cannot be made as small as {MAX_BYTES >> 10} KiB")
    return jpeg


class Snapshots:
    """Publishes pictures; `publish` gets a camera and a JPEG.

    `notice` is called by the inference thread and never waits, the rest by the main one.
    """

    def __init__(
        self, settings: Settings, publish: Callable[[str, bytes], None], metrics: Metrics, clock: Clock
    ) -> None:
        self._publish = publish
        self._metrics = metrics
        self._clock = clock
        self._waiting: queue.Queue[tuple[str, Image]] = queue.Queue(MOST_WAITING)
        self._may: dict[str, TokenBucket] = {}
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._allowed = frozenset(settings.pictured_cameras)
        self._at_decisions = frozenset(
            name for name in self._allowed if settings.cameras[name].snapshot == "decision"
        )

    def notice(self, frame: Frame, events: list[FaceEvent]) -> None:
        """Take the frame that brought a decision, where its camera shows those."""
        if frame.camera not in self._at_decisions:
            return
        if any(event.event_type != EventType.LEFT for event in events):
            try:
                self._waiting.put_nowait((frame.camera, frame.image))
            except queue.Full:
                self._metrics.count("snapshots.dropped")

    def tick(self) -> None:
        """Publish what waits.

        Raises:
            PhotoError: A picture cannot be encoded.
        """
        while not self._waiting.empty():
            camera, image = self._waiting.get_nowait()
            if self._may_show(camera):
                self._publish(camera, snapshot_jpeg(image))

    def show(self, camera: str, jpeg: bytes) -> bool:
        """Publish a picture that was asked for; returns False where its camera may not, or not so often."""
        shown = self._may_show(camera)
        if shown:
            self._publish(camera, jpeg)
        return shown

    def _may_show(self, camera: str) -> bool:
        if camera not in self._allowed:
            return False
        may = self._may.setdefault(camera, TokenBucket(PER_S, AT_ONCE, self._clock.monotonic)).take()
        self._metrics.count("snapshots.sent" if may else "snapshots.dropped")
        return may
