"""Counters and duration histograms of the running process. Holds numbers only; publishes nothing."""

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from time import monotonic, perf_counter

RECENT = 512
"""Durations kept per stage: at 15 frames/s about half a minute, enough for a p95."""


class Stopwatch:
    """Times one body. A class, because a generator would cost three times as much per frame."""

    __slots__ = ("_name", "_record_ms", "_started_s", "_timer", "spent_ms")

    def __init__(self, metrics: "Metrics", name: str) -> None:
        self._record_ms, self._name, self._timer = metrics.record_ms, name, metrics.timer
        self.spent_ms = 0.0

    def __enter__(self) -> "Stopwatch":
        self._started_s = self._timer()
        return self

    def __exit__(self, *_: object) -> None:
        self.spent_ms = spent_ms = (self._timer() - self._started_s) * 1e3
        self._record_ms(self._name, spent_ms)


class _Histogram:
    __slots__ = ("at_s", "recent_ms", "total_ms")

    def __init__(self) -> None:
        self.recent_ms: deque[float] = deque(maxlen=RECENT)
        self.at_s: deque[float] = deque(maxlen=RECENT)
        self.total_ms = 0.0


class Metrics:
    """Counts and recent durations by name; every method may be called from any thread.

    `clock` (monotonic seconds) tells when a duration was recorded, `timer` (seconds) measures it.
    """

    def __init__(
        self, clock: Callable[[], float] = monotonic, timer: Callable[[], float] = perf_counter
    ) -> None:
        self._clock, self.timer = clock, timer
        self._lock = threading.Lock()
        self._counts: dict[str, int] = defaultdict(int)
        self._histograms: dict[str, _Histogram] = defaultdict(_Histogram)

    def count(self, name: str, by: int = 1) -> None:
        """Add `by` to the counter `name`."""
        with self._lock:
            self._counts[name] += by

    def record_ms(self, name: str, duration_ms: float) -> None:
        """Add one duration in milliseconds to the histogram `name`."""
        with self._lock:
            histogram = self._histograms[name]
            histogram.recent_ms.append(duration_ms)
            histogram.at_s.append(self._clock())
            histogram.total_ms += duration_ms

    def timed(self, name: str) -> "Stopwatch":
        """Record how long the body of a `with` takes; its `spent_ms` says so afterwards."""
        return Stopwatch(self, name)

    def counts(self) -> dict[str, int]:
        """Return a copy of all counters."""
        with self._lock:
            return dict(self._counts)

    def totals_ms(self) -> dict[str, float]:
        """Return the sum of all durations of every histogram, in milliseconds."""
        with self._lock:
            return {name: those.total_ms for name, those in self._histograms.items()}

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """Return {"p50", "p95"} in milliseconds over the recent durations of every histogram."""
        with self._lock:
            recent = {name: list(those.recent_ms) for name, those in self._histograms.items()}
        return {
            name: {f"p{percent}": round(_percentile(ordered, percent), 3) for percent in (50, 95)}
            for name, values in recent.items()
            for ordered in [sorted(values)]
        }

    def p95_ms(self, name: str, within_s: float) -> float | None:
        """Return that percentile of a histogram's durations of the last `within_s` seconds; None: none."""
        with self._lock:
            since_s, histogram = self._clock() - within_s, self._histograms.get(name)
            if histogram is None:
                return None
            pairs = zip(histogram.at_s, histogram.recent_ms, strict=True)
            ordered = sorted(duration_ms for at_s, duration_ms in pairs if at_s >= since_s)
        return _percentile(ordered, 95) if ordered else None


def _percentile(ordered: list[float], percent: int) -> float:
    """Return a percentile of values in order, linear between neighbours, as `numpy.percentile` does.

    Source: R. J. Hyndman and Y. Fan, Sample Quantiles in Statistical Packages, 1996, definition 7.
    """
    position = (len(ordered) - 1) * percent / 100
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
