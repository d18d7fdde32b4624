"""Commands executed: each is answered once, and what was done is remembered and noted.

What is quick is done at once; what needs models or the gallery's lock is done by a child process, one at a
time. Who may command what is decided in `parse`, what a verb does in `verbs`.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from edge.core.clock import Clock
from edge.core.errors import CommandError, EdgeError, FileError
from edge.core.files import Audit
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.device.children.child import Child
from edge.device.children.errands import Errand
from edge.device.commands.answers import MAX_REMEMBERED, Answers
from edge.device.commands.parse import Command, Reply, Rules, parse, refusal_reply
from edge.gallery.format.removed import subject_hash
from edge.mqtt.broker import Received
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.messages import READS, ResponsePayload
from edge.mqtt.contract.topics import Topics

log = logging.getLogger(__name__)

MAX_WAITING = 8
"""Commands that wait for the child before them; what comes beyond is told to ask again."""

COMPLAIN_AGAIN_S = 60.0
"""Seconds until the same refusal gets another line in the log."""

REFUSALS_PER_S, REFUSALS_AT_ONCE = 1.0, 10
"""Refusals that are answered, which anybody may provoke; all of them are counted."""

REFUSALS_NOTED_PER_S, REFUSALS_NOTED_AT_ONCE = 0.1, 5
"""Refusals that get a line in their file; each line says how many there were until then."""

KEY_CHARS = 16
"""Of the public key that has signed, in a note."""

LOOKS = ("snapshot", "identify", "subjects")
"""Verbs that change nothing, but show persons: who looked is noted."""

FULL = f"{MAX_REMEMBERED} commands were done and have not expired; ask again when they have"
INTERRUPTED = "the daemon was restarted while it was at it; look what is in force before you ask again"
FAILED = "it failed in a way that nobody thought of; the device's log says how"
ANOTHER = "this transaction was used for another command"
DUPLICATE = "duplicate: this was answered before; ask again as a new transaction"

ANSWERS = "answers.json"
"""The answers to commands that changed something."""

AUDIT = "audit.jsonl"
"""A line for every command that changed something."""

READ = "reads.jsonl"
"""A line for every look at persons."""

REFUSED = "refused.jsonl"
"""A line now and then for commands that were refused."""

Action = Callable[[Command], dict[str, Any]]


class CommandExecutor:
    """One device's commands. Used by the main thread. `prove` is told when a signed one was in time.

    `actions` do what is quick, by verb; `errands` says what a child does for any other. Below `directory` lie
    the answers and the notes: what many may cause washes away nothing of what was changed.
    """

    def __init__(
        self,
        topics: Topics,
        directory: Path,
        rules: Callable[[], Rules],
        *,
        actions: Mapping[str, Action],
        errands: Callable[[Command], Errand],
        publish: Callable[[str, bytes, bytes | None], None],
        metrics: Metrics,
        clock: Clock,
        prove: Callable[[datetime], None] = lambda at: None,
    ) -> None:
        self._prove = prove
        self._topics = topics
        self._rules = rules
        self._actions = actions
        self._errands = errands
        self._publish = publish
        self._metrics = metrics
        self._clock = clock
        self._waiting: deque[Command] = deque()
        self._at_work: tuple[Command, Errand, Child] | None = None
        self._complaint = ("", 0.0)
        self._answers = Answers(directory / ANSWERS)
        self._audit, self._reads, self._refusals = (Audit(directory / n) for n in (AUDIT, READ, REFUSED))
        self._may_answer = TokenBucket(REFUSALS_PER_S, REFUSALS_AT_ONCE, clock.monotonic)
        self._may_note = TokenBucket(REFUSALS_NOTED_PER_S, REFUSALS_NOTED_AT_ONCE, clock.monotonic)

    def take(self, verb: str, received: Received) -> None:
        """Execute or refuse a command that has come in, or answer it as before."""
        try:
            command = parse(received, verb, self._topics, self._rules(), self._clock.now())
        except CommandError as error:
            self._refuse(verb, received, error)
            return
        if command.signed:
            self._prove(self._clock.now())
        self._answers.read_again()
        busy, known = self._busy_with(command.transaction), self._answers.get(command.transaction)
        content = busy.content if busy is not None else known.content if known is not None else None
        if content not in (None, command.content):
            self._tell(command, ANOTHER, {})
            return
        if busy is not None:
            return  # it is being done: its answer follows
        if known is not None:
            self._tell(command, known.error, known.data)
            return
        why = self._answers.unread or (FULL if self._is_full() else None)
        if why is not None and (command.signed or command.verb not in READS):
            self._tell(command, why, {})
            return
        action = self._actions.get(command.verb)
        if action is not None:
            self._execute(command, action)
        elif len(self._waiting) >= MAX_WAITING:
            self._tell(command, "busy; ask again later", {})
        else:
            self._waiting.append(command)

    def tick(self) -> None:
        """Take note of a child that has ended, and start the next one."""
        if self._at_work is not None:
            at_work, self._at_work = self._at_work, None
            command, errand, child = at_work
            with self._answering(command):
                ended = child.poll()
                if ended is None:
                    self._at_work = at_work
                    return
                self._done(command, None, errand.answer(ended))
        if self._waiting:
            command = self._waiting.popleft()
            with self._answering(command):
                self._begin(command)
                errand = self._errands(command)
                self._at_work = command, errand, errand.start(self._clock)

    def stop(self) -> None:
        """End a child that still runs; its command is remembered as interrupted."""
        if self._at_work is not None:
            self._at_work[2].stop()
            self._at_work = None

    def _refuse(self, verb: str, received: Received, error: CommandError) -> None:
        """Count, tell and note a refusal: seldom, because anybody may provoke one."""
        self._metrics.count("commands.refused")
        self._metrics.count(f"commands.refused.{error.reason}")
        shown = verb if verb.isprintable() else "?"
        self._complain(str(error), shown)
        if self._may_answer.take():
            reply = refusal_reply(received, verb, self._topics)
            self._answer(reply, shown, error.transaction, str(error), {})
        if self._may_note.take():
            count = self._metrics.counts()["commands.refused"]
            line = {"verb": shown, "transaction": error.transaction, "outcome": "refused"}
            try:
                self._refusals.note({"at": self._at(), **line, "reason": error.reason, "count": count})
            except FileError as failed:
                log.error("a refusal is not noted: %s", failed)

    def _complain(self, why: str, verb: str) -> None:
        """Say why a command is refused; an attacker does not fill the log with it."""
        now_s = self._clock.monotonic()
        if why == self._complaint[0] and now_s < self._complaint[1]:
            return
        self._complaint = (why, now_s + COMPLAIN_AGAIN_S)
        log.warning("command refused: %s", why, extra={"verb": verb})

    def _busy_with(self, transaction: str) -> Command | None:
        """Return the command of a transaction that waits or is being done."""
        at_work = () if self._at_work is None else (self._at_work[0],)
        found = (each for each in (*at_work, *self._waiting) if each.transaction == transaction)
        return next(found, None)

    def _is_full(self) -> bool:
        return self._answers.full(self._clock.now().timestamp(), len(self._waiting))

    def _execute(self, command: Command, action: Action) -> None:
        data = None
        with self._answering(command):
            self._begin(command)
            data = action(command)
        if data is not None:
            self._done(command, None, data)

    @contextmanager
    def _answering(self, command: Command) -> Iterator[None]:
        """Answer a command that fails. An error that nobody thought of is answered, and goes on."""
        try:
            yield
        except EdgeError as error:
            self._done(command, str(error), {})
        except Exception:
            self._done(command, FAILED, {})
            raise

    def _begin(self, command: Command) -> None:
        """Write down that it is being done, so that it is never done twice unnoticed."""
        if command.verb not in READS:
            self._answers.remember(command, INTERRUPTED, {}, self._clock.now().timestamp())

    def _done(self, command: Command, error: str | None, data: dict[str, Any]) -> None:
        self._metrics.count(f"commands.{'failed' if error else 'done'}")
        for keep in self._keeping(command, error, data):
            try:
                keep()
            except EdgeError as failed:
                log.error("a command is not remembered: %s", failed)
        log.info("command", extra={"verb": command.verb, "outcome": "error" if error else "ok"})
        self._tell(command, error, data)

    def _keeping(
        self, command: Command, error: str | None, data: dict[str, Any]
    ) -> Iterator[Callable[[], None]]:
        """Yield what remembers and notes what was done, of which each may fail for itself with a FileError.

        Of a look it is remembered only that it was answered, since it shows persons.
        """
        now_s, line = self._clock.now().timestamp(), {"at": self._at(), **audit_line(command, error)}
        if command.verb not in READS:
            yield partial(self._answers.remember, command, error, data, now_s)
            yield partial(self._audit.note, line)
            return
        if command.verb in LOOKS:
            yield partial(self._reads.note, line)
        if command.signed:
            yield partial(self._answers.spend, command, DUPLICATE, now_s)

    def _at(self) -> str:
        return self._clock.now().isoformat(timespec="seconds")

    def _tell(self, command: Command, error: str | None, data: dict[str, Any]) -> None:
        self._answer(command.reply, command.verb, command.transaction, error, data)

    def _answer(
        self, reply: Reply, verb: str, transaction: str | None, error: str | None, data: dict[str, Any]
    ) -> None:
        response = ResponsePayload(
            transaction=transaction, verb=verb, status="error" if error else "ok", error=error, data=data
        )
        self._publish(reply.topic, encode(response), reply.correlation)


def audit_line(command: Command, error: str | None) -> dict[str, Any]:
    """Return what is noted of a command: subjects as the hash that erasures use, keys by their beginning."""
    subject, camera = (getattr(command.args, name, None) for name in ("subject", "camera"))
    hashed = None if subject is None else subject_hash(subject)
    return {
        "verb": command.verb,
        "transaction": command.transaction,
        "subject": hashed,
        **({} if camera is None else {"camera": camera}),
        "by": None if command.signer is None else command.signer[:KEY_CHARS],
        "outcome": "error" if error else "ok",
    }
