"""What was decided, what arrived, what is missing: one line per fault."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.broker import Mosquitto, Subscriber
from tests.mqtt.door import TOPICS, Door

ACK_BATCH = 400


@dataclass(frozen=True)
class Entry:
    """One fault. `expected_loss`: the loss is what the mode promises, and is shown to say so."""

    fault: str
    rounds: int
    decided: int
    delivered: int
    lost: int
    duplicates: int
    note: str = ""
    expected_loss: bool = False
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return (self.lost == 0 or self.expected_loss) and self.duplicates == 0 and self.decided > 0

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"good": self.good}


Scenario = Callable[[Path, int], Entry]


@dataclass
class Consumer:
    """Keeps the journal: each decision once, by its id; acknowledges where asked."""

    broker: Mosquitto
    acknowledge: bool
    name: str = "keeper"
    arrived: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)

    def __enter__(self) -> "Consumer":
        self.subscriber = Subscriber(self.broker.port, "edge/v1/+/+/camera/+/journal", client_id=self.name)
        assert self.subscriber.subscribed.wait(10)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.subscriber.close()

    def _work(self) -> None:
        taken, owed = 0, []
        while not self._stopping.is_set():
            new = self.subscriber.seen[taken:]
            taken += len(new)
            ids = [json.loads(message.payload)["event_id"] for message in new]
            self.arrived += ids
            self.kept |= set(ids)
            owed += ids
            if self.acknowledge and owed and self.subscriber._client.is_connected():
                batch, owed = owed[:ACK_BATCH], owed[ACK_BATCH:]
                self.subscriber._client.publish(TOPICS.ack, json.dumps({"event_ids": batch}), 1)
            else:
                self._stopping.wait(0.02)

    def wait_for(self, ids: set[str], timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        while not ids <= self.kept and time.monotonic() < until_s:
            time.sleep(0.02)


def settle(
    fault: str, rounds: int, decided: set[str], consumer: Consumer, note: str = "", *, timeout_s: float = 60
) -> Entry:
    """Wait until all that was decided has arrived, and write the line. De-duplication is by event_id."""
    consumer.wait_for(decided, timeout_s)
    again = len(consumer.arrived) - len(consumer.kept)
    told = f"{again} sent again" if again else ""
    return Entry(
        fault,
        rounds,
        len(decided),
        len(decided & consumer.kept),
        len(decided - consumer.kept),
        len(consumer.kept - decided),
        "; ".join(part for part in (note, told) if part),
    )


def stop(*doors: Door) -> None:
    for door in doors:
        door.courier.stop(3)
