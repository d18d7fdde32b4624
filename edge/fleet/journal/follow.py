"""Follower: what a consumer of the journal does with what it hears. What an integrator starts from.

In this order: check, keep for good, show once, and only then acknowledge. Whatever dies in between, a
decision is shown and kept at least once, and the file holds it exactly once.
"""

import queue
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from edge.core.clock import Clock
from edge.core.errors import JournalAwayError, JournalError, LinkError, ToldOnce
from edge.fleet.journal.decision import JournalDecision, read_decision
from edge.fleet.journal.gaps import Gaps
from edge.fleet.journal.store import Store
from edge.mqtt.connection import MANY_BRIEF, STABLE_S
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.messages import MAX_ACK_IDS, AckPayload, OutboxDroppedPayload
from edge.mqtt.contract.topics import JOURNAL, OUTBOX_DROPPED, Topics
from edge.mqtt.subscriber import Listener, Message

OWN_SESSION = "give each its own name with --session, and the same --share where they share the work"

PAUSE_S = 0.5
"""Between two looks at the clock while nothing comes."""

GATHER_S = 0.02
MOST_GATHERED = 1000
"""Messages that come within this time, so many at most, are kept in one go, and acknowledged together."""

MOST_UNANSWERED = 500
"""Acknowledgements that the broker has not taken over; while there are more, those of each device gather."""

AWAY_S = 1.0
"""Between two tries to reach a store that is away. What comes meanwhile waits."""

MAX_COMPLAINTS = 20
"""Messages that are no events are shown up to here, and counted after that."""


def topics(site: str, device: str, share: str | None = None) -> tuple[str, ...]:
    """Return what is to be subscribed to; `+` stands for every site or device.

    Consumers with the same `share` get each message of the journal once, whichever of them.

    Source: MQTT 5.0, 4.8.2 Shared Subscriptions.
    """
    names = {"site": site, "device": device}
    shared = "" if share is None else f"$share/{share}/"
    return shared + JOURNAL.topic(**names, camera="+"), OUTBOX_DROPPED.topic(**names)


@dataclass(slots=True)
class Tally:
    """What came: messages of the journal, how many were new or known already, and how many no events."""

    received: int = 0
    new: int = 0
    duplicates: int = 0
    refused: int = 0


class Follower:
    """Keeps in `store`, shows decisions with `show` and everything else with `tell`.

    `publish` sends acknowledgements to a topic; None: nothing is acknowledged.
    """

    def __init__(
        self,
        store: Store,
        gaps: Gaps,
        *,
        show: Callable[[Sequence[JournalDecision]], None],
        tell: Callable[[str], None],
        publish: Callable[[str, bytes], None] | None,
    ) -> None:
        self._store = store
        self._gaps = gaps
        self._show = show
        self._tell = tell
        self._publish = publish
        self._named: dict[str, dict[str, None]] = defaultdict(dict)
        self.tally = Tally()

    def take(self, messages: Sequence[Message], now_s: float) -> None:
        """Take what came at `now_s` (monotonic).

        Raises:
            JournalError: It cannot be kept; nothing of it was acknowledged.
        """
        self.keep(self.read(messages), now_s)
        self.acknowledge()

    def read(self, messages: Sequence[Message]) -> list[JournalDecision]:
        """Return the decisions among `messages`, and tell what else there is."""
        return [decision for message in messages if (decision := self._read(message)) is not None]

    def keep(self, decisions: Sequence[JournalDecision], now_s: float) -> None:
        """Keep and show `decisions`, which came at `now_s` (monotonic); from now on they may be acknowledged.

        Known ones as well: their devices have not heard of the last time.

        Raises:
            JournalAwayError: The store cannot be reached; they are to be given again, whatever was done.
            JournalError: They cannot be kept; nothing was acknowledged.
        """
        new = self._store.add(decisions) if decisions else []
        self.tally.new += len(new)
        self._show(new)
        for source, seq in self._store.numbers(new):
            if (news := self._gaps.saw(source, seq, now_s)) is not None:
                self._tell(news)
        self.tally.duplicates += len(decisions) - len(new)
        for decision in decisions:
            self._named[decision.source][decision.event_id] = None

    def acknowledge(self) -> None:
        """Name to each device what was kept of it since the last call."""
        named, self._named = self._named, defaultdict(dict)
        if self._publish is None:
            return
        for source, event_ids in named.items():
            topic, ids = Topics(*source.split("/")).ack, tuple(event_ids)
            for start in range(0, len(ids), MAX_ACK_IDS):
                self._publish(topic, encode(AckPayload(event_ids=ids[start : start + MAX_ACK_IDS])))

    def tick(self, now_s: float) -> None:
        """Let time pass: tell gaps that nothing has filled."""
        for news in self._gaps.news(now_s):
            self._tell(news)

    def summary(self) -> str:
        """Return what came of it all, in one line."""
        holes = self._gaps.missing()
        missing = sum(high - low + 1 for ranges in holes.values() for low, high in ranges)
        where = f" ({', '.join(sorted(holes))})" if holes else ""
        return (
            f"{self.tally.received} received, {self.tally.new} new, {self.tally.duplicates} duplicates, "
            f"{self.tally.refused} refused; {missing} missing in gaps{where}, {self._gaps.filled} gaps filled"
        )

    def _read(self, message: Message) -> JournalDecision | None:
        if message.topic.endswith("/outbox_dropped"):
            self._notice(message)
            return None
        self.tally.received += 1
        try:
            if message.retained:
                raise JournalError(f"{message.topic}: a retained event is not of a device")
            return read_decision(message.topic, message.payload)
        except JournalError as error:
            self._complain(str(error))
            return None

    def _notice(self, message: Message) -> None:
        source = "/".join(message.topic.split("/")[2:4])
        try:
            dropped = OutboxDroppedPayload.model_validate_json(message.payload, extra="ignore").dropped
        except ValidationError:
            self._complain(f"{message.topic}: no notice")
        else:
            self._tell(f"{source}: {dropped} decisions dropped for want of room so far")

    def _complain(self, what: str) -> None:
        self.tally.refused += 1
        if self.tally.refused <= MAX_COMPLAINTS:
            self._tell(f"refused: {what}")


def follow(
    listener: Listener,
    speaker: Listener,
    follower: Follower,
    clock: Clock,
    stop: "queue.SimpleQueue[str]",
    tell: Callable[[str], None],
) -> None:
    """Follow what `listener` hears until something is in `stop`.

    `speaker` publishes for `follower`. It is a connection of its own: a broker has only some acknowledgements
    on their way, and on one connection its answers to them wait behind the decisions of a backlog.

    Raises:
        JournalError: Decisions cannot be kept.
        LinkError: Another client has taken over the session.
    """
    contact, told = Contact(clock.monotonic()), set[str]()
    while stop.empty():
        messages = take_batch(listener.messages, clock)
        now_s = clock.monotonic()
        if not _kept(follower, follower.read(messages), now_s, stop, tell):
            break
        listener.confirm(messages)
        if speaker.unanswered < MOST_UNANSWERED:
            follower.acknowledge()
        follower.tick(now_s)
        while (refusal := speaker.refusal()) is not None:
            if refusal not in told:
                told.add(refusal)
                tell(refusal)
        if listener.taken_over:
            raise LinkError(f"another program took over the session of this one; {OWN_SESSION}")
        if (news := contact.news(listener.connected, now_s)) is not None:
            tell(news)
    follower.acknowledge()


class Contact:
    """Says when the connection is lost and comes back, and not for ever where that is all it does."""

    def __init__(self, now_s: float) -> None:
        self._connected = True
        self._since_s = now_s
        self._brief = 0

    def news(self, connected: bool, now_s: float) -> str | None:
        """Return what is to be told now; `now_s` is monotonic seconds."""
        if connected == self._connected:
            return None
        if not connected:
            self._brief = self._brief + 1 if now_s - self._since_s < STABLE_S else 0
        self._connected, self._since_s = connected, now_s
        if self._brief == MANY_BRIEF and not connected:
            return (
                f"the connection is lost again and again; if another program has the session: {OWN_SESSION}"
            )
        if self._brief >= MANY_BRIEF:
            return None
        return "connected again" if connected else "connection lost; trying again"


def _kept(
    follower: Follower,
    decisions: Sequence[JournalDecision],
    now_s: float,
    stop: "queue.SimpleQueue[str]",
    tell: Callable[[str], None],
) -> bool:
    """Keep decisions, however long the store is away; returns False where something is in `stop` first."""
    away, told = False, ToldOnce()
    while True:
        try:
            follower.keep(decisions, now_s)
        except JournalAwayError as error:
            if told.is_new(str(error)):
                tell(f"{error}; trying again")
            away = True
            with suppress(queue.Empty):
                stop.put(stop.get(timeout=AWAY_S))
                return False
        else:
            if away:
                tell("the database is there again")
            return True


def take_batch(messages: "queue.SimpleQueue[Message]", clock: Clock) -> list[Message]:
    """Return what has come and comes within a moment of the first, or nothing when nothing comes."""
    batch: list[Message] = []
    try:
        batch.append(messages.get(timeout=PAUSE_S))
        until_s = clock.monotonic() + GATHER_S
        while len(batch) < MOST_GATHERED:
            batch.append(messages.get(timeout=max(0.0, until_s - clock.monotonic())))
    except queue.Empty:
        pass
    return batch
