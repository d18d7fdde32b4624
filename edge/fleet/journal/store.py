"""Where a consumer keeps decisions: nowhere, or in a file of JSON lines. Databases: `database`, `postgres`.

A store remembers what it holds, over restarts too, and has it on the disk when `add` returns.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import Protocol

from edge.core.errors import JournalError
from edge.core.files import take_lock
from edge.fleet.journal.decision import JournalDecision, parse_decision

MAX_REMEMBERED = 200_000
"""Decisions that are known again without a file: some 40 MB."""

Saw = Callable[[str, int], object]
"""Takes site/device and number of every decision that a file holds, in the order in which they came."""


class Store(Protocol):
    """Keeps decisions once."""

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Keep `decisions`; returns those that were not known. On return they are safe.

        Raises:
            JournalError: They cannot be kept.
        """
        ...

    def numbers(self, new: Sequence[JournalDecision]) -> list[tuple[str, int]]:
        """Return doors and numbers that count for gaps since the last call; `new` is what `add` returned."""
        ...

    def close(self) -> None:
        """Close it; nothing more can be added."""
        ...


class SoleStore:
    """A store that nobody else adds to."""

    def numbers(self, new: Sequence[JournalDecision]) -> list[tuple[str, int]]:
        """Return doors and numbers of `new`."""
        return [(each.source, each.seq) for each in new]


class MemoryStore(SoleStore):
    """Remembers the latest decisions while the process runs."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Keep `decisions`; returns those that were not known."""
        new = []
        for decision in decisions:
            if decision.key not in self._known:
                self._known[decision.key] = None
                new.append(decision)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return new

    def close(self) -> None:
        """Forget everything."""
        self._known.clear()


class JsonLines(SoleStore):
    """A file with one event per line. All ids are in memory: for millions use the database."""

    def __init__(self, path: Path, file: FileIO, known: set[tuple[str, str]]) -> None:
        self._path = path
        self._file = file
        self._known = known

    @classmethod
    def open(cls, path: Path, saw: Saw) -> "JsonLines":
        """Open the file at `path`, or make it. A last line that a crash cut off is removed.

        Raises:
            JournalError: It cannot be opened, holds something else, or is followed by another process.
        """
        try:
            file = path.open("ab", buffering=0)  # a buffer would keep what the disk has refused
        except OSError as error:
            raise JournalError(f"{path}: cannot be opened: {error.strerror}; name another file") from None
        try:
            if not take_lock(file.fileno()):
                raise JournalError(f"{path}: another process appends to it; stop it or name another file")
            return cls(path, file, _read(path, saw))
        except OSError as error:
            file.close()
            raise JournalError(f"{path}: cannot be read: {error.strerror}") from None
        except JournalError:
            file.close()
            raise

    def add(self, decisions: Sequence[JournalDecision]) -> list[JournalDecision]:
        """Append those of `decisions` that the file does not hold, and return them.

        Raises:
            JournalError: The disk refuses; the file is as it was.
        """
        new = {decision.key: decision for decision in decisions if decision.key not in self._known}
        if new:
            end = self._file.seek(0, os.SEEK_END)
            lines = memoryview(b"".join(decision.text.encode() + b"\n" for decision in new.values()))
            try:
                while lines:
                    lines = lines[self._file.write(lines) :]
                os.fsync(self._file.fileno())
            except OSError as error:
                os.truncate(self._path, end)
                raise JournalError(f"{self._path}: cannot be written: {error.strerror}") from None
            self._known.update(new)
        return list(new.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path, saw: Saw) -> set[tuple[str, str]]:
    """Return the keys of what is in the file, which ends with a whole line afterwards."""
    known: set[tuple[str, str]] = set()
    whole = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                os.truncate(path, whole)
                break
            whole += len(line)
            decision = parse_decision(line, f"{path}: line {number}")
            known.add(decision.key)
            saw(decision.source, decision.seq)
    return known
