"""The files of a published directory: read, written all or none, and swept. What they say is `repository`'s.

A web server of another user offers them: all may read them, and walk through their directories.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from edge.core import files as safefile
from edge.core.errors import FleetError

FOLDERS = ("metadata", "targets")


class Shelf:
    """One published directory. Names are relative to it, with `/`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str, max_bytes: int) -> bytes | None:
        """Return what is in a file, None where there is none.

        Raises:
            FileError: It cannot be read, or is larger.
        """
        return safefile.read_bounded(self.directory / name, max_bytes)

    def numbers(self, role: str) -> list[int]:
        """Return the versions of a role's metadata that are there, in ascending order."""
        found = (path.name.split(".")[0] for path in (self.directory / "metadata").glob(f"*.{role}.json"))
        return sorted(int(number) for number in found if number.isdecimal())

    def write(self, files: Mapping[str, bytes], believed: Collection[str] = ()) -> None:
        """Write files in this order; where one cannot be written, those that are new go again.

        Not once one of those that are `believed` is there: it may name the others.

        Raises:
            FleetError, FileError: It cannot be written.
        """
        made: list[Path] = []
        try:
            for name, data in files.items():
                path = self.directory / name
                self._prepare(path.parent)
                if not path.exists():
                    made.append(path)
                safefile.write_whole(path, data, safefile.PUBLIC)
        except BaseException:
            if not any(self._may_hold(name, files[name]) for name in believed):
                for path in reversed(made):
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
            raise

    def sweep(self, kept: Iterable[str]) -> None:
        """Delete every file of the repository that is not one of these.

        Raises:
            FleetError: One cannot be deleted; all others are.
        """
        names, refused = set(kept), ""
        for folder in FOLDERS:
            for path in sorted((self.directory / folder).rglob("*"), reverse=True):
                if path.is_dir() or path.relative_to(self.directory).as_posix() in names:
                    continue
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    refused = (
                        f"{path}: published no more, but it cannot be deleted: {error.strerror}; delete it"
                    )
        if refused:
            raise FleetError(refused)

    def _may_hold(self, name: str, data: bytes) -> bool:
        try:
            return (self.directory / name).read_bytes() == data
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _prepare(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while folder != self.directory.parent:
                if folder.stat().st_mode & 0o777 != safefile.PUBLIC_DIRECTORY:
                    folder.chmod(safefile.PUBLIC_DIRECTORY)  # whatever the umask says
                folder = folder.parent
        except OSError as error:
            raise FleetError(f"{folder}: cannot be made: {error.strerror}") from None
