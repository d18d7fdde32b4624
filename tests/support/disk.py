"""A disk that can be filled and emptied again."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class SmallDisk:
    """A small tmpfs where it can be mounted, else a limit on the size of every file."""

    directory: Path
    mounted: bool
    limits: tuple[int, int]

    def fill(self) -> None:
        if self.mounted:
            filler = os.open(self.directory / "filler", os.O_WRONLY | os.O_CREAT)
            try:
                for size in (65536, 4096, 1):
                    try:
                        while True:
                            os.write(filler, bytes(size))
                    except OSError:
                        continue
            finally:
                os.close(filler)
        else:
            largest = max((file.stat().st_size for file in self.directory.iterdir()), default=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, self.limits[1]))

    def free(self) -> None:
        if self.mounted:
            (self.directory / "filler").unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@contextmanager
def small_disk(directory: Path, size: str = "1m") -> Iterator[SmallDisk]:
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    disk = SmallDisk(directory, mounted, resource.getrlimit(resource.RLIMIT_FSIZE))
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)


@contextmanager
def read_only(directory: Path) -> Iterator[bool]:
    """Let a directory be on a read-only disk; yields False where that takes a right that is missing."""
    bind = ["mount", "--bind", str(directory), str(directory)]
    remount = ["mount", "-o", "remount,ro,bind", str(directory)]
    mounted = os.geteuid() == 0 and all(
        subprocess.run(command, capture_output=True, check=False).returncode == 0
        for command in (bind, remount)
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(directory)], check=True)
