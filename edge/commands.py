"""CommandDesk: has commands executed, answers each once, and remembers what was done.

What is quick is done at once by `actions`; what needs models or the gallery's lock is a child process, one
at a time. Used by the main thread. Who may command what is `mqtt.commanding`'s business.
"""

import hashlib
import json
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edge import safefile
from edge.children import Errand, Runner
from edge.clock import Clock
from edge.errors import CommandError, ConfigError, EdgeError, FileError
from edge.metrics import Metrics
from edge.mqtt.broker import Received
from edge.mqtt.codec import encode
from edge.mqtt.commanding import Command, Reply, Rules, parse
from edge.mqtt.payloads_command import READS, ResponsePayload
from edge.mqtt.topics import Topics

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Answers kept although their command has expired: a clock may be set back."""

MAX_REMEMBERED = 1024
"""Answers kept in all; each is kept until its command has expired, within the hour."""

MAX_WAITING = 8
COMPLAIN_AGAIN_S = 60.0
MAX_ERROR_CHARS = 500
MAX_MEMORY_BYTES = 8 << 20
MAX_AUDIT_BYTES = 1 << 20
HASH_CHARS = 16
FULL = f"{MAX_REMEMBERED} commands were done and have not expired; ask again when they have"
INTERRUPTED = "the daemon was restarted while it was at it; look what is in force before you ask again"

Action = Callable[[Command], dict[str, Any]]


class Remembered(BaseModel):
    """The answer to a transaction; `content` is the hash of what was asked, `until_s` its end since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    content: str
    error: str | None
    data: dict[str, Any]
    until_s: float = 0.0


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    answers: dict[str, Remembered]


@dataclass(frozen=True, slots=True)
class CommandFiles:
    """Where answers and the audit lie."""

    directory: Path

    @property
    def answers(self) -> Path:
        """The answers to commands that changed something."""
        return self.directory / "answers.json"

    @property
    def audit(self) -> Path:
        """A line for every command that changed something."""
        return self.directory / "audit.jsonl"


class CommandDesk:
    """One device's commands. `actions` do what is quick; `errands` says what a child does for a verb."""

    def __init__(
        self,
        topics: Topics,
        files: CommandFiles,
        rules: Callable[[], Rules],
        *,
        actions: Mapping[str, Action],
        errands: Callable[[Command], Errand],
        publish: Callable[[str, bytes, bytes | None], None],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._topics = topics
        self._files = files
        self._rules = rules
        self._actions = actions
        self._errands = errands
        self._publish = publish
        self._metrics = metrics
        self._clock = clock
        self._runner = Runner(clock)
        self._waiting: deque[Command] = deque()
        self._at_work: Command | None = None
        self._complaint = ("", 0.0)
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self._unread = self._read_answers()

    def take(self, verb: str, received: Received) -> None:
        """Execute or refuse a command that has come in, or answer it as before."""
        try:
            command = parse(received, verb, self._topics, self._rules(), self._clock.now())
        except CommandError as error:
            self._metrics.count("commands.refused")
            self._complain(str(error), verb)
            if error.transaction is not None:
                self._answer(Reply(self._topics.response("refused")), verb, error.transaction, str(error), {})
            return
        if self._unread is not None:
            self._unread = self._read_answers()
        known = self._answers.get(command.transaction)
        if known is not None:
            if known.content != command.content:
                self._tell(command, "this transaction was used for another command", {})
            else:
                self._tell(command, known.error, known.data)
            return
        if self._is_busy_with(command):
            return  # it is being done: its answer follows
        why = self._unread or (FULL if self._is_full() else None)
        if command.verb not in READS and why is not None:
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
            result = self._runner.poll()
            if result is None:
                return
            command, self._at_work = self._at_work, None
            self._done(command, result.error, result.data)
        if self._waiting:
            command = self._waiting.popleft()
            try:
                self._begin(command)
                self._runner.start(self._errands(command))
            except EdgeError as error:
                self._done(command, str(error), {})
            else:
                self._at_work = command

    def stop(self) -> None:
        """End a child that still runs; its command is remembered as interrupted."""
        self._runner.stop()

    def _complain(self, why: str, verb: str) -> None:
        """Say why a command is refused; an attacker does not fill the log with it."""
        now_s = self._clock.monotonic()
        if why == self._complaint[0] and now_s < self._complaint[1]:
            return
        self._complaint = (why, now_s + COMPLAIN_AGAIN_S)
        log.warning("command refused: %s", why, extra={"verb": verb if verb.isprintable() else "?"})

    def _is_busy_with(self, command: Command) -> bool:
        return command.transaction in {
            each.transaction for each in (*self._waiting, self._at_work) if each is not None
        }

    def _is_full(self) -> bool:
        now_s = self._clock.now().timestamp()
        open_ = sum(each.until_s > now_s for each in self._answers.values())
        return open_ + len(self._waiting) >= MAX_REMEMBERED

    def _execute(self, command: Command, action: Action) -> None:
        try:
            self._begin(command)
            data = action(command)
        except EdgeError as error:
            self._done(command, str(error), {})
        else:
            self._done(command, None, data)

    def _begin(self, command: Command) -> None:
        """Write down that it is being done, so that it is never done twice unnoticed."""
        if command.verb not in READS:
            self._remember(command, INTERRUPTED, {})

    def _done(self, command: Command, error: str | None, data: dict[str, Any]) -> None:
        self._metrics.count(f"commands.{'failed' if error else 'done'}")
        try:
            if command.verb not in READS:
                self._remember(command, error, data)
                self._note(command, error)
        except EdgeError as failed:
            log.error("a command is not remembered: %s", failed)
        log.info("command", extra={"verb": command.verb, "outcome": "error" if error else "ok"})
        self._tell(command, error, data)

    def _tell(self, command: Command, error: str | None, data: dict[str, Any]) -> None:
        self._answer(command.reply, command.verb, command.transaction, error, data)

    def _answer(
        self, reply: Reply, verb: str, transaction: str, error: str | None, data: dict[str, Any]
    ) -> None:
        response = ResponsePayload(
            transaction=transaction, verb=verb, status="error" if error else "ok", error=error, data=data
        )
        self._publish(reply.topic, encode(response), reply.correlation)

    def _remember(self, command: Command, error: str | None, data: dict[str, Any]) -> None:
        answers = OrderedDict(self._answers)
        answers.pop(command.transaction, None)
        answers[command.transaction] = Remembered(
            content=command.content,
            error=error and error[:MAX_ERROR_CHARS],
            data=data,
            until_s=0.0 if command.expires_at is None else command.expires_at.timestamp(),
        )
        now_s = self._clock.now().timestamp()
        old = list(answers)[:-REMEMBERED]
        for transaction in old:
            if answers[transaction].until_s <= now_s:
                del answers[transaction]
        self._make_directory()
        safefile.write_whole(self._files.answers, _File(answers=dict(answers)).model_dump_json().encode())
        self._answers = answers

    def _read_answers(self) -> str | None:
        """Read what is remembered; returns why the disk does not give it: nothing is changed until it does.

        Raises:
            ConfigError: It is damaged.
        """
        try:
            data = safefile.read_bounded(self._files.answers, MAX_MEMORY_BYTES)
            if data is not None:
                self._answers = OrderedDict(_File.model_validate_json(data).answers)
            return None
        except FileError as error:
            log.error("commands that change something are refused: %s", error)
            return str(error)
        except ValidationError:
            raise ConfigError(
                f"{self._files.answers}: damaged; restore it, or remove it to forget which commands were done"
            ) from None

    def _note(self, command: Command, error: str | None) -> None:
        """Append a line to the audit; a file that has become long makes room for a new one."""
        subject = getattr(command.args, "subject", None)
        line = audit_line(self._clock.now(), command, subject, error)
        path = self._files.audit
        try:
            self._make_directory()
            if path.exists() and path.stat().st_size > MAX_AUDIT_BYTES:
                path.replace(path.with_suffix(".old.jsonl"))
            descriptor = os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, safefile.PRIVATE
            )
            with os.fdopen(descriptor, "a", encoding="utf-8") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as failed:
            raise FileError(f"{path}: cannot be written: {failed.strerror}") from None

    def _make_directory(self) -> None:
        try:
            self._files.directory.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self._files.directory}: cannot be made: {error.strerror}") from None


def audit_line(at: datetime, command: Command, subject: str | None, error: str | None) -> str:
    """Return the line of one command; a subject is told as the hash that erasures use."""
    hashed = None if subject is None else hashlib.sha256(subject.encode()).hexdigest()[:HASH_CHARS]
    return json.dumps(
        {
            "at": at.isoformat(timespec="seconds"),
            "verb": command.verb,
            "transaction": command.transaction,
            "subject": hashed,
            "outcome": "error" if error else "ok",
        }
    )
