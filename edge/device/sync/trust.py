"""What a published directory offers, believed only as far as its signatures reach (The Update Framework).

Its cache in `directory` may be lost or damaged at any time; what must not be forgotten is kept by `floors`.
Knows no gallery.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Signed, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.ngclient import Updater, UpdaterConfig  # type: ignore[attr-defined]

from edge.core import files
from edge.core.errors import GalleryError, HeldBackError, RollbackError, SignatureError, SyncError
from edge.device.sync.fetch import Fetcher

ROLES = ("root", "timestamp", "snapshot", "targets")

MAX_TARGETS_BYTES = 2 << 20
"""Bytes are counted before JSON is read. Measured: 500 scopes make 180 kB of targets, 67 kB of snapshot."""

MAX_ERROR_CHARS = 200


class TrustedDirectory:
    """The published directory at `url`, looked at once; `trusted_root` is what trust begins with.

    Raises:
        SignatureError: `trusted_root` is no root that has signed itself.
        GalleryError: `directory` cannot be written.
    """

    def __init__(self, url: str, directory: Path, trusted_root: bytes, fetcher: Fetcher) -> None:
        self._directory = directory
        self._fetcher = fetcher
        self._metadata = directory / "metadata"
        config = UpdaterConfig(
            max_root_rotations=64,
            max_delegations=4,
            root_max_length=256 << 10,
            timestamp_max_length=16 << 10,
            snapshot_max_length=1 << 20,
            targets_max_length=MAX_TARGETS_BYTES,
        )
        with _renamed(directory):
            self._metadata.mkdir(files.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            for each in (self._metadata, self._metadata / "root_history"):
                _drop_pipes(each)
            self._updater = Updater(
                str(self._metadata),
                f"{url.rstrip('/')}/metadata/",
                target_base_url=f"{url.rstrip('/')}/targets/",
                fetcher=fetcher,
                config=config,
                bootstrap=trusted_root,
            )

    def find(self, path: str) -> TargetFile | None:
        """Return what is signed about a target by who may sign it, None where nobody has.

        Raises:
            SyncError: The metadata cannot be had, or cannot be trusted: unsigned, old, expired, too long.
            GalleryError: The cache cannot be written.
        """
        with _renamed(self._directory):
            return self._updater.get_targetinfo(path)

    def versions(self, now: datetime) -> dict[str, int]:
        """Return the versions of the metadata that `find` came to trust.

        Raises:
            SyncError: By our own clock they have expired.
        """
        versions = {}
        for role in ROLES:
            signed = self._signed(role)
            if signed.is_expired(now):
                raise _expired(f"{role}.json is expired")
            versions[role] = signed.version
        return versions

    def keys(self, delegated: str) -> dict[str, tuple[str, ...]]:
        """Return, by role, the ids of the keys that `find` came to trust.

        `delegated` is a role below `targets`; it is left out where there is none.

        Raises:
            GalleryError: The cache cannot be read.
        """
        root, targets = self._signed("root"), self._signed("targets")
        assert isinstance(root, Root)
        assert isinstance(targets, Targets)
        keys = {role: tuple(sorted(root.roles[role].keyids)) for role in ROLES}
        roles = (targets.delegations.roles or {}) if targets.delegations else {}
        if delegated in roles:
            keys[delegated] = tuple(sorted(roles[delegated].keyids))
        return keys

    def fetch(self, target: TargetFile) -> bytes:
        """Return the bytes of a target, which are those that were signed.

        Raises:
            SyncError: They cannot be had, or are others.
            GalleryError: They cannot be written.
        """
        path = self._directory / "target.part"
        try:
            with _renamed(self._directory):
                path.unlink(missing_ok=True)
                self._updater.download_target(target, str(path))
                return files.read_regular(path)
        finally:
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Keep nothing of what was fetched any more: it is in its place.

        Raises:
            GalleryError: It cannot be deleted.
        """
        with _renamed(self._directory):
            self._fetcher.finish()

    def _signed(self, role: str) -> Signed:
        with _renamed(self._directory):
            return Metadata.from_file(str(self._metadata / f"{role}.json")).signed


def _drop_pipes(directory: Path) -> None:
    """Delete from a cache what would block or never end: The Update Framework opens its files by name."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.unlink()


@contextmanager
def _renamed(directory: Path) -> Iterator[None]:
    """Turn what The Update Framework and the disk raise into errors of ours, one line each."""
    try:
        yield
    except tuf_errors.ExpiredMetadataError as error:
        raise _expired(_line(error)) from None
    except tuf_errors.BadVersionNumberError as error:
        raise RollbackError(f"an old state is offered: {_line(error)}") from None
    except tuf_errors.RepositoryError as error:
        raise SignatureError(f"what is offered is not what was signed: {_line(error)}") from None
    except tuf_errors.SlowRetrievalError:
        raise SyncError("sync.url: the server is too slow; try again later") from None
    except tuf_errors.DownloadLengthMismatchError:
        raise SyncError("sync.url: more is sent than was signed or is ever needed") from None
    except tuf_errors.DownloadError as error:
        raise SyncError(f"sync.url: no usable answer: {_line(error)}") from None
    except OSError as error:
        raise GalleryError(f"{directory}: {error.strerror or error}; make it writable") from None


def _expired(what: str) -> HeldBackError:
    return HeldBackError(f"{what}: it was not renewed, somebody holds updates back, or the clock is ahead")


def _line(error: Exception) -> str:
    """Return what an error says; a server may have put in the words."""
    text = str(error) or type(error).__name__
    return "".join(char if char.isprintable() else " " for char in text)[:MAX_ERROR_CHARS]
