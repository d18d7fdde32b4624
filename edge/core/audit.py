"""Audit: files of one JSON line for everything that matters, flushed to the disk. Knows no commands."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.core import files as safefile
from edge.core.errors import FileError

MAX_BYTES = 1 << 20
"""A file that has become longer makes room for a new one; the one before it is kept."""


class Audit:
    """One file, mode 0600, and the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            FileError: It cannot be written.
        """
        path = self._path
        try:
            path.parent.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > MAX_BYTES:
                path.replace(path.with_suffix(".old.jsonl"))
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror}") from None
        safefile.append_line(path, json.dumps(line))
