"""Who was removed at this door: the hashes that `erasure` keeps of them, read for who asks about one.

A gallery elsewhere may still hold a subject that was removed here; it must not come back through it.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from edge.core import files as safefile
from edge.core.errors import FileError
from edge.gallery.store.erasure import AUDIT, HASH_CHARS, OWED, subject_hash

MAX_BYTES = 64 << 20
"""Some million removals."""

HASH = re.compile(rb'"([0-9a-f]{%d})"' % HASH_CHARS)
"""Not parsed as JSON: a line that a power cut left unfinished counts, too."""


class Erased:
    """Whoever was ever removed from galleries in these directories; read again when their files change."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._paths = tuple(directory / name for directory in directories for name in (AUDIT, OWED))
        self._seen: tuple[tuple[int, int, int], ...] | None = None
        self._hashes: frozenset[bytes] = frozenset()

    def __contains__(self, subject_id: object) -> bool:
        """Return whether a subject was removed.

        Raises:
            FileError: It cannot be read who was.
        """
        seen = tuple(map(_stamp, self._paths))
        if seen != self._seen:
            data = [safefile.read_bounded(path, MAX_BYTES) or b"" for path in self._paths]
            self._hashes = frozenset(name for each in data for name in HASH.findall(each))
            self._seen = seen
        return subject_hash(str(subject_id)).encode() in self._hashes


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size
