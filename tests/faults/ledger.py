"""What was decided, what arrived, what is missing: one line per fault."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge.mqtt.broker import Broker
from tests.support.broker import Mosquitto, Subscriber
from tests.support.door import TOPICS, Door
from tests.support.waits import LIMIT_S

ACK_BATCH = 400
OPEN = ("allow_anonymous true", "max_queued_messages 0")
"""Lines of a broker that is open to everybody and keeps all that it must for a consumer that is away."""


def at(port: int) -> Broker:
    return Broker("127.0.0.1", port, backoff_max_s=0.2)


@dataclass(frozen=True)
class Entry:
    """One fault. `expected_loss`: the loss is what the mode promises, and is shown to say so.

    `wrong`: what contradicts itself after de-duplication by event_id (`History.wrong`). `gaps`: numbers that
    never came and that the device does not say it dropped. `repeated`: what came more than once before
    de-duplication, which is allowed.
    """

    fault: str
    rounds: int
    decided: int
    delivered: int
    lost: int
    wrong: int = 0
    gaps: int = 0
    repeated: int = 0
    note: str = ""
    expected_loss: bool = False
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        whole = self.lost == 0 and self.gaps == 0
        return (whole or self.expected_loss) and self.wrong == 0 and self.decided > 0

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"good": self.good}


STAMPED = ("published_at", "replayed")
"""What is stamped when an event is sent: it differs when the event is sent again."""


@dataclass
class History:
    """The journal of one device as it came, in any order and as often as it came."""

    contents: dict[str, set[str]] = field(default_factory=dict)
    ids: dict[int, set[str]] = field(default_factory=dict)
    came: int = 0

    def add(self, payload: bytes) -> str:
        """Take a message; returns its event_id."""
        event = json.loads(payload)
        event_id = str(event["event_id"])
        content = {name: value for name, value in event.items() if name not in STAMPED}
        self.contents.setdefault(event_id, set()).add(json.dumps(content, sort_keys=True))
        self.ids.setdefault(event["seq"], set()).add(event_id)
        self.came += 1
        return event_id

    def wrong(self, decided: set[str]) -> list[str]:
        """What cannot be: a number of two events, an event of two contents or numbers, one never decided."""
        return [
            *(f"number {seq} of {len(ids)} events" for seq, ids in self.ids.items() if len(ids) > 1),
            *(f"{each} of {len(told)} contents" for each, told in self.contents.items() if len(told) > 1),
            *(f"{each} was never decided" for each in self.contents if each not in decided),
        ]

    def gaps(self, dropped: int) -> int:
        """How many numbers from 1 to the highest are missing, beyond those that were told as dropped."""
        return max(0, max(self.ids, default=0) - len(self.ids) - dropped)


Scenario = Callable[[Path, int], Entry]


@dataclass
class Consumer:
    """Keeps the journal: each decision once, by its id; acknowledges where asked."""

    broker: Mosquitto
    acknowledge: bool
    name: str = "keeper"
    history: History = field(default_factory=History)
    kept: set[str] = field(default_factory=set)

    def __enter__(self) -> "Consumer":
        self.subscriber = Subscriber(self.broker.port, "edge/v1/+/+/camera/+/journal", client_id=self.name)
        assert self.subscriber.subscribed.wait(LIMIT_S)
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
            ids = [self.history.add(message.payload) for message in new]
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
    fault: str,
    rounds: int,
    decided: set[str],
    consumer: Consumer,
    note: str = "",
    *,
    dropped: int = 0,
    timeout_s: float = 60,
) -> Entry:
    """Wait until all that was decided has arrived, and write the line. De-duplication is by event_id."""
    consumer.wait_for(decided, timeout_s)
    history = consumer.history
    wrong = history.wrong(decided)
    return Entry(
        fault,
        rounds,
        len(decided),
        len(decided & consumer.kept),
        len(decided - consumer.kept),
        len(wrong),
        history.gaps(dropped),
        history.came - len(consumer.kept),
        "; ".join(part for part in (note, *wrong[:3]) if part),
    )


def stop(*doors: Door) -> None:
    for door in doors:
        door.courier.stop(3)
