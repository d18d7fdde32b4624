"""Scan: reads the waiting rows of the outbox in the order of their seq, page by page. Chooses none."""

from collections import deque

from edge.mqtt.rows import Pending, Row
from edge.mqtt.writer import OutboxThread

PAGE = 64
"""Rows asked for at once: enough to keep the window full while the next page is read."""


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

    def take(self, pending: Pending) -> None:
        """Take the answer to a request; one that another scan made is ignored."""
        if pending.token != self._token:
            return
        self._requested = False
        self.page.extend(pending.rows)
        if pending.rows:
            self._cursor = pending.rows[-1].seq
            self.more = self.more or len(pending.rows) == PAGE

    def ask(self, without: tuple[str, ...]) -> None:
        """Ask for the next page, without rows on these topics, unless there is none or it was asked for."""
        if self.more and not self._requested:
            self.more, self._requested = False, True
            self._outbox.request(self._token, PAGE, after=self._cursor, without=without)

    @property
    def quiet(self) -> bool:
        """Whether every row was looked at."""
        return not (self.page or self._requested or self.more)
