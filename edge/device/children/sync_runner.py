"""`edge sync` as a child of the daemon: one at a time, not too many, and what came of every synchronisation.

A synchronisation leaves what it came to in a file, whoever has started it: the daemon, a timer or somebody by
hand. The gallery that it installs is seen on the disk.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from edge.core.clock import Clock
from edge.core.errors import EX_CONFIG, FileError
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.device.children.child import Child, Ended
from edge.device.sync.outcome import OutcomeFile, SyncOutcome

log = logging.getLogger(__name__)

LIMIT_S = 120.0
"""A child that takes longer is stopped; the timer or the next request tries again."""

STARTS_PER_S, STARTS_AT_ONCE = 0.1, 4
"""Children in the long run and at once: whoever may publish `gallery/desired` must not keep a board busy."""


class SyncRunner:
    """Synchronises on request: starts `edge sync` with `arguments`, and follows what is left in `directory`.

    Used by one thread. Asked while a child runs, another follows it.
    """

    def __init__(self, directory: Path, arguments: Sequence[str], *, metrics: Metrics, clock: Clock) -> None:
        self._arguments = ("sync", *arguments)
        self._metrics = metrics
        self._clock = clock
        self._left = OutcomeFile(directory)
        self._child: Child | None = None
        self._child_left_it = False
        self._wanted = False
        self._found: SyncOutcome | None = None
        self._unstarted: str | None = None
        self._bucket = TokenBucket(STARTS_PER_S, STARTS_AT_ONCE, clock.monotonic)
        self.before = self._left.load()
        """What was left before the start; None: nothing that can be read."""
        self._know(self.before)

    def request(self, at_least: int = 0, scope: str | None = None) -> None:
        """Synchronise now, or after the child that is at it.

        Not if the last one found `at_least` of this scope already. Where more ask than are started, the last
        one is started later.
        """
        found = self._found
        if at_least and found is not None and found.scope == scope and found.version >= at_least:
            return
        self._wanted = True
        self._start()

    def poll(self) -> SyncOutcome | None:
        """Return what a synchronisation came to that has ended since; None while none has. Never waits."""
        ended = None if self._child is None else self._child.poll()
        outcome = self._left.news()  # not before the child is looked at: one that has ended has left it
        if outcome is not None:
            self._child_left_it = True
            self._know(outcome)
        if ended is not None:
            self._child = None
            if not self._child_left_it:
                outcome = self._ended_without_a_word(ended)
        if outcome is None and self._unstarted is not None:
            outcome, self._unstarted = self._failed(self._unstarted), None
        self._start()
        return outcome

    def stop(self) -> None:
        """End a child that still runs; what it had installed is installed whole."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _know(self, outcome: SyncOutcome | None) -> None:
        if outcome is not None and outcome.status != "refused":
            self._found = outcome

    def _start(self) -> None:
        """Start a child if one is wanted, none is at it, and they are not too many."""
        if not self._wanted or self._child is not None or not self._bucket.take():
            return
        self._wanted = self._child_left_it = False
        self._metrics.count("sync.started")
        try:
            self._child = Child(self._arguments, LIMIT_S, self._clock)
        except FileError as error:
            self._unstarted = f"edge sync: {error}"

    def _ended_without_a_word(self, ended: Ended) -> SyncOutcome:
        why = f"edge sync: {ended.problem}"
        if ended.problem is None:
            why = ": ".join(filter(None, (f"edge sync ended with {ended.code}", ended.complaint)))
        return self._failed(why, "config" if ended.code == EX_CONFIG else "failed")

    def _failed(self, why: str, reason: str = "failed") -> SyncOutcome:
        self._metrics.count("sync.failed")
        log.error("%s", why)
        return SyncOutcome("refused", 0, 0, None, why, reason=reason, at=self._clock.now())
