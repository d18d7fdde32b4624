"""Held: the waiting decisions that no broker will take as they are. Lists only."""

from dataclasses import dataclass

from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.outbox import Outbox


@dataclass(frozen=True, slots=True)
class Held:
    """One decision, and why it is not delivered."""

    seq: int
    event_id: str
    topic: str
    why: str


def held(outbox: Outbox, topics: Topics) -> list[Held]:
    """Return what was set aside, and what was decided under another site or device name than `topics`.

    Raises:
        OutboxError: The database cannot be read.
    """
    foreign = [
        (row, f"decided as {'/'.join(row.topic.split('/')[2:4])}")
        for row in outbox.pending(outbox.max_rows)
        if not row.topic.startswith(f"{topics.root}/")
    ]
    found = sorted([*outbox.apart(), *foreign], key=lambda each: each[0].seq)
    return [Held(row.seq, row.event_id, row.topic, why) for row, why in found]
