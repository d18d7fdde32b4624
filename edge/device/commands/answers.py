"""Answers: what was answered to which command, over restarts, so that none is done twice."""

import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.core import files as safefile
from edge.core.errors import ConfigError, EdgeError, FileError
from edge.device.commands.parse import Command

log = logging.getLogger(__name__)

REMEMBERED = 256
"""Answers kept although their command has expired: a clock may be set back."""

MAX_REMEMBERED = 1024
"""Answers kept in all; each is kept until its command has expired, within the hour."""

MAX_ERROR_CHARS = 500
MAX_MEMORY_BYTES = 8 << 20


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


class Answers:
    """The answers in one file; `unread` says why the disk does not give it, in which time nothing is added.

    Raises:
        ConfigError: The file is damaged, at construction.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self.unread: str | None = None
        self._read()

    def read_again(self) -> None:
        """Read what the disk did not give before, if anything."""
        if self.unread is not None:
            try:
                self._read()
            except ConfigError as error:
                self._is_unread(error)

    def get(self, transaction: str) -> Remembered | None:
        """Return the answer to a transaction, None where there was none."""
        return self._answers.get(transaction)

    def full(self, now_s: float, waiting: int) -> bool:
        """Return whether no more can be remembered, beside the `waiting`, at a moment since 1970."""
        open_ = sum(each.until_s > now_s for each in self._answers.values())
        return open_ + waiting >= MAX_REMEMBERED

    def remember(self, command: Command, error: str | None, data: dict[str, Any], now_s: float) -> None:
        """Remember an answer; what has expired makes room.

        Raises:
            FileError: It cannot be written, and is not remembered.
        """
        answers = self._with(command, error, data, now_s)
        self._write(answers)
        self._answers = answers

    def spend(self, command: Command, error: str, now_s: float) -> None:
        """Remember that a command gets nothing but this error any more.

        Raises:
            FileError: It cannot be written, and is remembered until a restart.
        """
        self._answers = self._with(command, error, {}, now_s)
        self._write(self._answers)

    def _with(
        self, command: Command, error: str | None, data: dict[str, Any], now_s: float
    ) -> "OrderedDict[str, Remembered]":
        answers = OrderedDict(self._answers)
        answers.pop(command.transaction, None)
        answers[command.transaction] = Remembered(
            content=command.content,
            error=error and error[:MAX_ERROR_CHARS],
            data=data,
            until_s=0.0 if command.expires_at is None else command.expires_at.timestamp(),
        )
        for transaction in list(answers)[:-REMEMBERED]:
            if answers[transaction].until_s <= now_s:
                del answers[transaction]
        return answers

    def _write(self, answers: "OrderedDict[str, Remembered]") -> None:
        try:
            self._path.parent.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self._path.parent}: cannot be made: {error.strerror}") from None
        safefile.write_whole(self._path, _File(answers=dict(answers)).model_dump_json().encode())

    def _read(self) -> None:
        try:
            data = safefile.read_bounded(self._path, MAX_MEMORY_BYTES)
            if data is not None:
                self._answers = OrderedDict(_File.model_validate_json(data).answers)
            self.unread = None
        except FileError as error:
            self._is_unread(error)
        except ValidationError:
            raise ConfigError(
                f"{self._path}: damaged; restore it, or remove it to forget which commands were done"
            ) from None

    def _is_unread(self, error: EdgeError) -> None:
        if str(error) != self.unread:
            log.error("commands that change something are refused: %s", error)
        self.unread = str(error)
