"""Counters and duration histograms of the running process. Holds numbers only; publishes nothing."""

import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np

RECENT = 512
"""Durations kept per stage: at 15 frames/s about half a minute, enough for a p95."""


class Metrics:
    """Counts and recent durations by name; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = defaultdict(int)
        self._durations_ms: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    def count(self, name: str, by: int = 1) -> None:
        """Add `by` to the counter `name`."""
        with self._lock:
            self._counts[name] += by

    def record_ms(self, name: str, duration_ms: float) -> None:
        """Add one duration in milliseconds to the histogram `name`."""
        with self._lock:
            self._durations_ms[name].append(duration_ms)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long the body takes."""
        started_s = perf_counter()
        try:
            yield
        finally:
            self.record_ms(name, (perf_counter() - started_s) * 1e3)

    def counts(self) -> dict[str, int]:
        """Return a copy of all counters."""
        with self._lock:
            return dict(self._counts)

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """Return {"p50", "p95"} in milliseconds over the recent durations of every histogram."""
        with self._lock:
            recent = {name: list(values) for name, values in self._durations_ms.items()}
        return {
            name: {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}
            for name, values in recent.items()
            for p50, p95 in [np.percentile(values, (50, 95))]
        }
