"""A token bucket: how many of something are taken, however many come. Pure."""

from collections.abc import Callable


class TokenBucket:
    """Lets `burst` through at once and `per_s` in the long run. `monotonic` gives seconds."""

    def __init__(self, per_s: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._at_s = monotonic()

    def take(self, cost: int = 1) -> bool:
        """Return whether one more may pass, or as many as `cost`."""
        now_s = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True
