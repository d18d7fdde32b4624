"""A link that runs, and what it reported."""

import queue
import time
from typing import Any

from edge.core.clock import Clock, SystemClock
from edge.core.metrics import Metrics
from edge.mqtt.broker import Broker, Will
from edge.mqtt.connection import LinkThread
from tests.support.waits import LIMIT_S

WILL = Will("edge/v1/hq/door-03/status", b"offline")


class Linking:
    """A running link and what it reported."""

    def __init__(
        self,
        broker: Broker,
        client_id: str = "edge.hq.door-03",
        subscriptions: tuple[str, ...] = (),
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.metrics = Metrics()
        self.link = LinkThread(
            self.inbox,
            broker,
            client_id=client_id,
            will=WILL,
            subscriptions=subscriptions,
            metrics=self.metrics,
            clock=clock or SystemClock(),
            **options,
        )
        self.link.start()

    def next(self, kind: type, timeout_s: float = LIMIT_S, **like: Any) -> Any:
        until_s = time.monotonic() + timeout_s
        while True:
            item = self.inbox.get(timeout=max(0.01, until_s - time.monotonic()))
            if isinstance(item, kind) and all(getattr(item, key) == value for key, value in like.items()):
                return item
