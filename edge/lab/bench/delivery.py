"""What one event costs on its way out: encoding, and a commit that survives a power cut."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edge.core.download import Progress
from edge.core.types import (
    EventType,
    FaceEvent,
    Latency,
    ModelStamp,
    Quality,
    Score,
    Shots,
    Subject,
)
from edge.mqtt.contract.encode import EventEncoder
from edge.mqtt.delivery.outbox import Changes, Outbox, Row

EVENTS = 300


def bench_event(at: datetime) -> FaceEvent:
    """Return a match of that moment with everything in it that an event can hold."""
    return FaceEvent(
        event_id="0194b6a0-0000-7000-8000-000000000000",
        event_type=EventType.MATCH,
        camera="bench",
        visit="v-bench",
        captured_at=at,
        monotonic_s=1.0,
        subject=Subject("p-bench", "Bench", ("staff",)),
        reason=None,
        score=Score(0.61, 0.39, 0.44, 0.05, 0.001, 812),
        shots=Shots(3, 11),
        quality=Quality(112, 0.8, -8.0, 0.9, 0.9, 0.6),
        box=(0.4, 0.2, 0.1, 0.2),
        model=ModelStamp("bench", "0" * 64, 1),
        latency=Latency(80.0, 2.0, 6.0, 0.1),
    )


def measure_delivery(step: Progress) -> dict[str, Any]:
    """Encode and commit events one by one; returns milliseconds."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    event = bench_event(at)
    encoder = EventEncoder("bench", "bench", "boot", clock=lambda: "synced")
    encode_ms, commit_ms = [], []
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        outbox = Outbox.open(Path(folder) / "outbox.sqlite", max_rows=10_000, now=lambda: at)
        for seq in range(1, EVENTS + 1):
            begun_s = perf_counter()
            payload = encoder.encode(event, seq)
            encoded_s = perf_counter()
            row = Row(seq, f"bench-{seq}", "bench/journal", payload, 0, 0, vital=True)
            outbox.write(Changes(puts={seq: row}, last_seq=seq))
            encode_ms.append((encoded_s - begun_s) * 1e3)
            commit_ms.append((perf_counter() - encoded_s) * 1e3)
            step("delivery", seq, EVENTS)
        outbox.close()
    return {"encode_ms": percentiles(encode_ms), "commit_ms": percentiles(commit_ms)}


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 of `values`."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return {"p50": round(float(p50), 4), "p95": round(float(p95), 4), "p99": round(float(p99), 4)}
