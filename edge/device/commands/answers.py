"""Answers: what was answered to which command, over restarts, so that none is done twice."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from edge.core.errors import ConfigError
from edge.core.files import StateFile, StateKeeper
from edge.device.commands.parse import Command

REMEMBERED = 256
"""Answers kept although their command has expired: a clock may be set back."""

MAX_REMEMBERED = 1024
"""Answers kept in all; each is kept until its command has expired, within the hour."""

MAX_ERROR_CHARS = 500
"""Of the reason why a command failed."""

MAX_MEMORY_BYTES = 8 << 20
"""Of the file, which is read whole."""


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
        mend = "restore it, or remove it to forget which commands were done"
        file = StateFile(path, _File, MAX_MEMORY_BYTES, ConfigError, mend)
        self._kept = StateKeeper(file, _File(answers={}), "commands that change something are refused")

    @property
    def unread(self) -> str | None:
        """Why it is not known what was answered; None: it is."""
        return self._kept.unread

    def read_again(self) -> None:
        """Read what the disk did not give before, if anything."""
        self._kept.read_again()

    def get(self, transaction: str) -> Remembered | None:
        """Return the answer to a transaction, None where there was none."""
        return self._kept.value.answers.get(transaction)

    def full(self, now_s: float, waiting: int) -> bool:
        """Return whether no more can be remembered, besides the `waiting`, at a moment since 1970."""
        open_ = sum(each.until_s > now_s for each in self._kept.value.answers.values())
        return open_ + waiting >= MAX_REMEMBERED

    def remember(self, command: Command, error: str | None, data: dict[str, Any], now_s: float) -> None:
        """Remember an answer; what has expired makes room.

        Raises:
            FileError: It cannot be written, and is not remembered.
        """
        self._kept.write(self._with(command, error, data, now_s))

    def spend(self, command: Command, error: str, now_s: float) -> None:
        """Remember that a command gets nothing but this error any more.

        Raises:
            FileError: It cannot be written, and is remembered until a restart.
        """
        self._kept.value = self._with(command, error, {}, now_s)
        self._kept.write(self._kept.value)

    def _with(self, command: Command, error: str | None, data: dict[str, Any], now_s: float) -> _File:
        answers = dict(self._kept.value.answers)
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
        return _File(answers=answers)
