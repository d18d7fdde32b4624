"""Errands: what a child process `edge ...` does for a command, what it is given, and what its answer is."""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge.core.clock import Clock
from edge.core.errors import CommandError
from edge.device.children.child import Child, Ended, in_memory

LIMIT_S = 60.0
"""Seconds that a command may take: longer than any photo takes on a small board."""

MAX_MESSAGE_CHARS = 1000
"""Of what a child printed, in the answer."""

STANDARD_INPUT = "/proc/self/fd/0"
"""The path by which a child opens what it is given. Source: proc(5)."""


class Given(Enum):
    """Stands among the arguments for the path of what is given: no text, so that no id is taken for it."""

    PHOTO = "photo"
    LABEL = "label"


PHOTO, LABEL = Given.PHOTO, Given.LABEL


def read_text(text: str) -> dict[str, Any]:
    """Return what a child printed as a message."""
    return {"message": text[:MAX_MESSAGE_CHARS]}


def read_json(text: str) -> dict[str, Any]:
    """Return the JSON object that a child printed.

    Raises:
        CommandError: It printed none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError("it printed nothing that can be read")
    return found


@dataclass(frozen=True, slots=True)
class Errand:
    """What to run after `edge`.

    `photo` (base64) and `label` become files in memory whose paths replace `PHOTO` and `LABEL`: everybody on
    the device may see the arguments of a process.
    """

    arguments: tuple[str | Given, ...]
    photo: str | None = field(default=None, repr=False)
    read: "Callable[[str], dict[str, Any]]" = read_text
    label: str | None = field(default=None, repr=False)

    def start(self, clock: Clock) -> Child:
        """Return the child that is at it.

        Raises:
            CommandError: The photo is no base64, or no program can be given what it is to be given.
            FileError: There is no memory, no process or no file left for it.
        """
        try:
            photo = b"" if self.photo is None else base64.b64decode(self.photo, validate=True)
        except (binascii.Error, ValueError):
            raise CommandError("args.photo: it is no base64") from None
        with in_memory(photo) as given, in_memory((self.label or "").encode()) as label:
            paths = {PHOTO: STANDARD_INPUT, LABEL: f"/proc/self/fd/{label.fileno()}"}
            arguments = [part if isinstance(part, str) else paths[part] for part in self.arguments]
            try:
                return Child(arguments, LIMIT_S, clock, stdin=given, inherited=(label,))
            except ValueError:
                raise CommandError(
                    "args: they hold a character that no program can be given, as NUL"
                ) from None

    def answer(self, ended: Ended) -> dict[str, Any]:
        """Return what a child that has ended came to.

        Raises:
            CommandError: It failed; says why.
        """
        if ended.code is not None and (ended.code not in (0, 1) or (ended.code == 1 and not ended.output)):
            why = ended.complaint or f"it ended with {ended.code}"
            raise CommandError(why.replace(STANDARD_INPUT, "photo"))
        if ended.problem is not None:
            raise CommandError(ended.problem)
        return self.read(ended.output)
