"""What a power cut may leave on a disk: every step of a change is recorded and replayed into a new directory.

A name is on the disk for certain when its directory was synced, bytes when their file was. What was not may
be there or not: names in the order in which they were changed, bytes whole, torn or not at all.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

Names = dict[str, int | str]
"""What is in a directory: inodes of files and targets of links, by name."""

HOOKED = ("open", "fsync", "pwrite", "rename", "replace", "unlink", "link", "symlink")


@dataclass(frozen=True)
class Moment:
    """What may be on the disk after one step; `done` says that the change was reported before it."""

    step: int
    done: bool
    directories: dict[str, list[Names]]
    contents: dict[int, list[bytes]]

    def disks(self) -> Iterator[dict[str, dict[str, bytes | str]]]:
        """Yield each possible disk: bytes of files and targets of links, by name, by directory."""
        for chosen in product(*self.directories.values()):
            for pick in range(3):
                yield {
                    directory: {
                        name: each if isinstance(each, str) else _picked(self.contents[each], pick)
                        for name, each in names.items()
                    }
                    for directory, names in zip(self.directories, chosen, strict=True)
                }


@dataclass
class Recorder:
    """Watches the files in the directories below `root` that are there when it begins."""

    root: Path
    moments: list[Moment] = field(default_factory=list)
    done: bool = False
    _durable: dict[int, bytes] = field(default_factory=dict)
    _held: dict[int, int] = field(default_factory=dict)  # keeps inode numbers from being used again
    _directories: dict[str, list[Names]] = field(default_factory=dict)

    def begin(self) -> None:
        """Take what is there for what is on the disk."""
        for path in [self.root, *(path for path in self.root.rglob("*") if path.is_dir())]:
            self._directories[str(path.relative_to(self.root))] = [self._names(path)]
        self._durable = {inode: _content(held) for inode, held in self._held.items()}
        self.look()

    def lost(self) -> dict[int, bytes]:
        """Return the bytes on the disk that have no name any more, by inode."""
        named = {each for tried in self._directories.values() for names in tried for each in names.values()}
        return {inode: self._durable.get(inode, b"") for inode in self._held if inode not in named}

    def synced(self, descriptor: int) -> None:
        """Take note of an fsync."""
        where = Path(f"/proc/self/fd/{descriptor}").readlink()
        if where.is_dir() and where.is_relative_to(self.root):
            self._directories[str(where.relative_to(self.root))] = [self._names(where)]
        else:
            self._durable[os.fstat(descriptor).st_ino] = _content(descriptor)

    def look(self) -> None:
        """Write down what may be on the disk now."""
        for directory, tried in self._directories.items():
            names = self._names(self.root / directory)
            if names != tried[-1]:
                tried.append(names)
        contents = {}
        for inode, held in self._held.items():
            sure, now = self._durable.get(inode, b""), _content(held)
            half = len(now) // 2
            contents[inode] = [sure, now] if sure == now else [sure, now[:half] + sure[half:], now]
        directories = {name: list(tried) for name, tried in self._directories.items()}
        self.moments.append(Moment(len(self.moments), self.done, directories, contents))

    def close(self) -> None:
        """Let go of the files."""
        for held in self._held.values():
            _real["close"](held)

    def _names(self, directory: Path) -> Names:
        names: Names = {}
        for path in sorted(directory.iterdir()):
            if path.is_symlink():
                names[path.name] = str(path.readlink())
            elif path.is_file():
                inode = path.stat().st_ino
                if inode not in self._held:
                    self._held[inode] = _real["open"](path, os.O_RDONLY)
                names[path.name] = inode
        return names


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Record every step of what the body does below `root`."""
    recorder = Recorder(root)
    recorder.begin()

    def hook(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "fsync":
                recorder.look()  # the bytes are written, and not yet on the disk
            result = _real[name](*args, **kwargs)
            if name == "fsync":
                recorder.synced(args[0])
            recorder.look()
            return result

        return call

    try:
        with patch.multiple(os, **{name: hook(name) for name in HOOKED}):
            yield recorder
    finally:
        recorder.close()


def laid_out(disk: dict[str, dict[str, bytes | str]], root: Path) -> Path:
    """Write a disk into a new directory."""
    for directory, names in disk.items():
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name, each in names.items():
            path = root / directory / name
            if isinstance(each, str):
                path.symlink_to(each)
            else:
                path.write_bytes(each)
                path.chmod(0o600)
    return root


_real: dict[str, Any] = {name: getattr(os, name) for name in (*HOOKED, "close")}


def _picked(contents: list[bytes], pick: int) -> bytes:
    return contents[min(pick, len(contents) - 1)]


def _content(descriptor: int) -> bytes:
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()
