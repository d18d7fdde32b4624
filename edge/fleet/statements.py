"""The signed metadata and the files of a published directory: the newest of each, and a change written whole.

Signs nothing and looks at no signature (`repository`). The newest is what the timestamp leads to: a file that
was written when a change broke off is not there, and goes with the next one. A web server of another user
offers the files: all may read them, and walk through their directories.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (  # type: ignore[attr-defined]
    Metadata,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from edge.core import files
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
        return files.read_bounded(self.directory / name, max_bytes)

    def numbers(self, role: str) -> list[int]:
        """Return the versions of a role's metadata that are there, in ascending order."""
        found = (path.name.split(".")[0] for path in (self.directory / "metadata").glob(f"*.{role}.json"))
        return sorted(int(number) for number in found if number.isdecimal())

    def write(self, contents: Mapping[str, bytes], believed: Collection[str] = ()) -> None:
        """Write files in this order; where one cannot be written, those that are new go again.

        Not once one of those that are `believed` is there: it may name the others.

        Raises:
            FleetError, FileError: It cannot be written.
        """
        made: list[Path] = []
        try:
            for name, data in contents.items():
                path = self.directory / name
                self._prepare(path.parent)
                if not path.exists():
                    made.append(path)
                files.write_whole(path, data, files.PUBLIC)
        except BaseException:
            if not any(self._may_hold(name, contents[name]) for name in believed):
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
                if folder.stat().st_mode & 0o777 != files.PUBLIC_DIRECTORY:
                    folder.chmod(files.PUBLIC_DIRECTORY)  # whatever the umask says
                folder = folder.parent
        except OSError as error:
            raise FleetError(f"{folder}: cannot be made: {error.strerror}") from None


MAX_METADATA_BYTES = 8 << 20

KEPT_METADATA = 5
"""Versions of a role's metadata that stay, for a device that is just fetching; of the root all do."""

KEPT_TARGETS = 2
"""Versions of a role whose files stay, unless somebody was taken out with the newest."""

WRITTEN_LAST = ("root", "timestamp")
"""In this order: a new root is believed at once, all the rest with the timestamp."""


class Statements:
    """What is said in one published directory. Within a `change` drafts count as the newest."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._shelf = Shelf(directory)
        self._drafts: dict[str, tuple[str, bytes]] = {}
        self._files: dict[str, bytes] = {}

    def exists(self, role: str) -> bool:
        """Return whether something was published for a role."""
        return self._name(role) is not None

    def data(self, role: str) -> bytes:
        """Return the newest metadata of a role.

        Raises:
            FleetError: There are none.
        """
        if role in self._drafts:
            return self._drafts[role][1]
        name = self._name(role)
        data = self._shelf.read(name, MAX_METADATA_BYTES) if name else None
        if data is None:
            raise FleetError(
                f"{self._directory}: there is no {role} role; restore the published directory from a backup"
            )
        return data

    def load(self, role: str) -> Metadata[Any]:
        """Return the newest metadata of a role.

        Raises:
            FleetError: There are none, or they are damaged.
        """
        try:
            return Metadata.from_bytes(self.data(role))
        except RepositoryError as error:
            raise FleetError(f"{self._directory}: {role} is damaged: {error}") from None

    def draft(self, role: str, version: int, data: bytes) -> None:
        """Let these be a role's next metadata, once the change ends."""
        self._drafts[role] = (_metadata_file(role, version), data)

    def add(self, info: TargetFile, data: bytes) -> None:
        """Let this file be published, once the change ends."""
        self._files[target_file(info)] = data

    @contextmanager
    def change(self, forgotten: Collection[str] = ()) -> Iterator[None]:
        """Write what was drafted meanwhile, or nothing of it; then delete what is published no more.

        Of the roles `forgotten` no older file stays.

        Raises:
            FleetError, FileError: It cannot be written; or it is, and something older cannot be deleted.
        """
        try:
            yield
            last = [role for role in WRITTEN_LAST if role in self._drafts]
            order = [*(role for role in self._drafts if role not in last), *last]
            # The first root of all is trusted by nobody yet.
            believed = [self._drafts[role][0] for role in last if role != "root" or self.exists(role)]
            contents = self._files | {self._drafts[role][0]: self._drafts[role][1] for role in order}
            self._shelf.write(contents, believed)
        finally:
            self._drafts.clear()
            self._files.clear()
        self.sweep(forgotten)

    def sweep(self, forgotten: Collection[str] = ()) -> None:
        """Delete all files but those that are named by the newest metadata, and for a while by older ones.

        Of the roles `forgotten` no older file stays.

        Raises:
            FleetError: One cannot be deleted; all others are.
        """
        targets = cast(Targets, self.load("targets").signed)
        delegated = (targets.delegations.roles or {}) if targets.delegations else {}
        kept = {_metadata_file("root", number) for number in self._shelf.numbers("root")}
        kept.add(_metadata_file("timestamp", 0))
        snapshot = cast(Snapshot, self.load("snapshot").signed)
        for role in ("snapshot", "targets", *delegated):
            newest = snapshot.version if role == "snapshot" else snapshot.meta[f"{role}.json"].version
            numbers = [number for number in self._shelf.numbers(role) if number <= newest][-KEPT_METADATA:]
            kept |= {_metadata_file(role, number) for number in numbers}
            if role != "snapshot":
                for number in numbers[-1 if role in forgotten else -KEPT_TARGETS :]:
                    kept |= self._targets_of(_metadata_file(role, number))
        self._shelf.sweep(kept)

    def _targets_of(self, name: str) -> set[str]:
        try:
            metadata = Metadata[Targets].from_bytes(self._shelf.read(name, MAX_METADATA_BYTES) or b"")
        except RepositoryError:
            return set()  # an older one; the newest was loaded before
        return {target_file(info) for info in metadata.signed.targets.values()}

    def _name(self, role: str) -> str | None:
        if role == "root":
            numbers = self._shelf.numbers("root")
            return _metadata_file(role, numbers[-1]) if numbers else None
        if role == "timestamp":
            name = _metadata_file(role, 0)
            return name if (self._directory / name).exists() else None
        if self._name("timestamp") is None:
            return None
        if role == "snapshot":
            return _metadata_file(role, cast(Timestamp, self.load("timestamp").signed).snapshot_meta.version)
        said = cast(Snapshot, self.load("snapshot").signed).meta.get(f"{role}.json")
        return None if said is None else _metadata_file(role, said.version)


def target_file(info: TargetFile) -> str:
    """Return where a target lies below the published directory."""
    return f"targets/{info.get_prefixed_paths()[0]}"


def _metadata_file(role: str, version: int) -> str:
    return f"metadata/{'' if role == 'timestamp' else f'{version}.'}{role}.json"
