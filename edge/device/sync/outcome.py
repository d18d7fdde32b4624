"""What a synchronisation came to: left in a file for the daemon, and printed by `edge sync --json`."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from edge.core import files
from edge.core.errors import (
    ClockError,
    ConfigError,
    EdgeError,
    FileError,
    GalleryIntegrityError,
    HeldBackError,
    ModelError,
    ModelMismatchError,
    RollbackError,
    SignatureError,
    SyncError,
)

FILE_NAME = "outcome.json"
"""In the directory of what synchronisation remembers."""

MAX_BYTES = 16 * 1024
MAX_ERROR_CHARS = 500
"""Of the reason in a report."""

REASONS: tuple[tuple[type[EdgeError], str], ...] = (
    (ClockError, "clock"),
    (RollbackError, "rollback"),
    (SignatureError, "signature"),
    (HeldBackError, "expired"),
    (SyncError, "server"),
    (GalleryIntegrityError, "integrity"),
    (ModelMismatchError, "model"),
    (ModelError, "model"),
    (ConfigError, "config"),
    (FileError, "disk"),
)
"""The first that fits; else `gallery`. `failed`: the child that synchronises ended without a word."""


@dataclass(frozen=True, slots=True)
class SyncOutcome:
    """What a synchronisation came to; version, count and model are those of the published gallery installed.

    updated: it was installed just now; current: it was there already; refused: see `error`, and `reason` for
    machines. `error` may also tell what is left to do after the others.
    """

    status: Literal["updated", "current", "refused"]
    version: int
    count: int
    model_id: str | None
    error: str | None = None

    candidate: bool = False
    """Whether there is a candidate, a gallery that may be switched to."""

    reason: Annotated[str, Field(pattern="^[a-z]{1,16}$")] | None = None
    at: AwareDatetime | None = None
    """When it ended."""

    scope: str | None = None
    """Whose gallery it was about; None: an older release did not say."""

    rights: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """Published version by which subjects were removed and restricted here, though its gallery is refused."""

    def to_json(self) -> str:
        """Return one line of JSON; `beside` is what the last release called `candidate`."""
        said = {**asdict(self), "at": self.at.isoformat() if self.at else None}
        return json.dumps({**said, "beside": self.candidate})


def refusal(error: EdgeError, at: datetime | None = None, scope: str | None = None) -> SyncOutcome:
    """Return the outcome of a synchronisation that an error ended."""
    return SyncOutcome("refused", 0, 0, None, str(error), reason=reason_of(error), at=at, scope=scope)


def reason_of(error: EdgeError) -> str:
    """Return the class of an error as one word."""
    return next((word for kind, word in REASONS if isinstance(error, kind)), "gallery")


def save_outcome(directory: Path, outcome: SyncOutcome) -> None:
    """Leave it in the directory of a door's synchronisation.

    Raises:
        FileError: It cannot be written.
    """
    files.write_whole(directory / FILE_NAME, outcome.to_json().encode())


def read_outcome(data: bytes | str) -> SyncOutcome | None:
    """Return what `to_json` wrote, in the last release as well; None where it is something else."""
    try:
        return TypeAdapter(SyncOutcome).validate_json(data)
    except (ValidationError, RecursionError):
        return None


def load_outcome(directory: Path) -> SyncOutcome | None:
    """Return what was left, None where there is nothing that can be read."""
    try:
        data = files.read_bounded(directory / FILE_NAME, MAX_BYTES)
    except FileError:
        return None
    return None if data is None else read_outcome(data)


class OutcomeFile:
    """What was left in the directory of a door's synchronisation, watched."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._seen = self._stamp()

    def load(self) -> SyncOutcome | None:
        """Return what was left last, None where there is nothing that can be read."""
        return load_outcome(self._directory)

    def news(self) -> SyncOutcome | None:
        """Return what was left since the last time, None where nothing was that can be read."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        return self.load()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = (self._directory / FILE_NAME).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
