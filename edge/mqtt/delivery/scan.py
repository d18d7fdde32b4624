"""Scan: reads the waiting rows of the outbox in the order of their seq, page by page. Chooses none."""

from collections import deque

from edge.mqtt.delivery.outbox_thread import OutboxThread
from edge.mqtt.delivery.rows import Pending, Row

PAGE = 64
"""Rows asked for at once: enough to keep the window full while the next page is read."""

UNREAD_PAUSE_S = 1.0
"""Pause before a page that the disk did not give is asked for again."""


class Scan:
    """One reading, from the oldest row on. `token` tells the answers to it from those to others."""

    def __init__(self, outbox: OutboxThread, token: int) -> None:
        self._outbox = outbox
        self._token = token
        self._cursor = 0
        self._requested = False
        self.page: deque[Row] = deque()
        """Rows that were read and are not looked at yet."""
        self.more = True
        """There may be rows behind the last page."""
        self._unread = False
        self.due_s: float | None = None
        """When a page that could not be read is asked for again, monotonic seconds."""

    def take(self, pending: Pending) -> None:
        """Take the answer to a request; one that another scan made is ignored.

        What could not be read is left for another request from the same place: nothing is passed over.
        """
        if pending.token != self._token:
            return
        self._requested = False
        self.page.extend(pending.rows)
        self._unread, self.due_s = not pending.read, None
        if pending.rows and pending.read:
            self._cursor = pending.rows[-1].seq
            self.more = self.more or len(pending.rows) == PAGE

    def tick(self, now_s: float) -> None:
        """Let time pass: what could not be read is asked for again."""
        if self._unread and self.due_s is None:
            self.due_s = now_s + UNREAD_PAUSE_S
        elif self.due_s is not None and self.due_s <= now_s:
            self.more, self.due_s = True, None

    def ask(self, without: tuple[str, ...]) -> None:
        """Ask for the next page, without rows on these topics, unless there is none or it was asked for."""
        if self.more and not self._requested:
            self.more, self._requested = False, True
            self._outbox.request(self._token, PAGE, after=self._cursor, without=without)

    @property
    def quiet(self) -> bool:
        """Whether every row was looked at."""
        return not (self.page or self._requested or self.more or self._unread)
