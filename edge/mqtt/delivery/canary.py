"""Canary: finds out whether a broker of MQTT 3.1.1 passes on what it accepts. Sends through `publish`.

Such a broker acknowledges a message that its access rules deny, and throws it away. The device therefore
sends itself a message first, and its journal waits until that has come back. What it proves is that this
device may write its canary: a broker without rules, or with rules for the whole root. Where a rule allows the
canary and denies the journal, its rows are lost: nothing in MQTT 3.1.1 tells. To prove the journal itself the
device would have to read it back, for which no device has the right (deploy/mosquitto/acl).
"""

import logging
from collections.abc import Callable

from edge.core.metrics import Metrics
from edge.mqtt.broker import Connected, Received

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 60.0
PATIENCE_S = 5.0
"""How long the canary may stay away before the operator is told."""

Publish = Callable[[int, str, bytes], object]
"""Takes the connection, the topic and the payload."""


class Canary:
    """Used by one thread; `now_s` is monotonic seconds."""

    def __init__(self, topic: str, publish: Publish, metrics: Metrics) -> None:
        self._topic = topic
        self._publish = publish
        self._metrics = metrics
        self._connection: int | None = None
        self._begun_s = self._due_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._told = False

    @property
    def clear(self) -> bool:
        """Whether nothing speaks against sending the journal."""
        return self._connection is None

    @property
    def due_s(self) -> float | None:
        """When `tick` is to be called next, or None."""
        return None if self.clear else self._due_s

    def begin(self, connected: Connected, now_s: float) -> None:
        """Start over on a new connection; MQTT 5 says by itself what it denies."""
        self._connection = connected.connection if connected.protocol == "3.1.1" else None
        self._begun_s = now_s
        self._pause_s = FIRST_PAUSE_S
        self._due_s = now_s + self._pause_s  # by then the subscription to it has been sent
        self._told = False

    def end(self) -> None:
        """Stop: the connection is gone."""
        self._connection = None

    def tick(self, now_s: float) -> None:
        """Send the next one when it is time."""
        if self._connection is None or now_s < self._due_s:
            return
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self._due_s = now_s + self._pause_s
        self._publish(self._connection, self._topic, str(self._connection).encode())
        if now_s - self._begun_s >= PATIENCE_S and not self._told:
            self._told = True
            self._metrics.count("mqtt.silenced")
            log.error(
                "the broker accepts what this device sends and does not pass it on; events are kept. "
                "Allow it to write below its root and to read its canary (deploy/mosquitto/acl)",
                extra={"topic": self._topic},
            )

    def heard(self, received: Received) -> bool:
        """Take a message; returns whether it was a canary."""
        if received.topic != self._topic:
            return False
        if received.connection == self._connection and not received.retained:
            self._connection = None
            if self._told:
                log.info("the broker passes on what this device sends")
        return True
