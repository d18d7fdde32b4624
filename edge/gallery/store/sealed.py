"""Small files that only this device can open: written whole, sealed under its key, bound to what they are.

What they hold, and what it means when one cannot be opened, is the business of those who keep them: `crops`,
`denials`, `kept_visits`. Versions of the gallery are larger and have a key each (`vault`).
"""

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from edge.core import files
from edge.core.errors import FileError, GalleryError, KeyFileError
from edge.gallery.format.seal import Binding, new_key, seal, unseal

log = logging.getLogger(__name__)


def device_key(path: Path, *, make: bool) -> bytes:
    """Return this device's key, 32 bytes; made at first use where `make` allows it.

    It lies in a file of mode 0600, or comes from systemd's credentials, encrypted with the TPM where there is
    one.

    Raises:
        KeyFileError: It is not there, no key, or readable by others.
        FileError: It cannot be written, or the disk does not give it, which may pass.
    """
    if make and not path.exists():
        files.make_private_directory(path.parent)
        files.write_key(path, new_key())
        log.warning("a device key was made beside the gallery: whoever copies the disk has both")
    try:
        return files.read_key(
            path, "bring it back from the backup, or correct gallery.device_key and what the unit loads"
        )
    except KeyFileError as error:
        raise KeyFileError(f"device key: {error}") from None
    except FileError as error:
        raise FileError(f"device key: {error}") from None


class SealedFiles:
    """Files of one private directory. `key` is the file of the device's key, made at first use if `make_key`.

    Files are called by their names.
    """

    def __init__(self, directory: Path, key: Path, *, make_key: bool) -> None:
        self._directory = directory
        self._key = key
        self._make_key = make_key

    def write(self, name: str, plain: bytes, binding: Binding) -> None:
        """Replace a file in one step; its directory is made if absent.

        Raises:
            GalleryError: The directory cannot be made.
            FileError: The file cannot be written, or the device's key cannot be used.
        """
        files.make_private_directory(self._directory, GalleryError)
        key = device_key(self._key, make=self._make_key)
        files.write_whole(self._directory / name, seal(plain, key, binding))

    def read(self, name: str, binding: Binding, max_bytes: int) -> bytes | None:
        """Return what a file holds, None where there is none.

        Raises:
            GalleryIntegrityError: It was altered, or is bound to something else, or is another device's.
            GalleryError: It has a format that only a newer version of this software reads.
            FileError: It is larger than `max_bytes`, or it or the device's key cannot be read.
        """
        data = files.read_bounded(self._directory / name, max_bytes)
        return None if data is None else unseal(data, device_key(self._key, make=False), binding)

    def named(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        """Return the names that a pattern fits as a whole, none where there is no directory.

        Raises:
            GalleryError: The directory cannot be read.
        """
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise GalleryError(f"{self._directory}: cannot be read: {error.strerror}") from None
        return [found for name in names if (found := pattern.fullmatch(name))]

    def delete(self, names: Iterable[str]) -> int:
        """Shred files, also those after one that cannot be; returns how many.

        Raises:
            FileError: What was wrong with the first that could not be deleted.
        """
        number, failed = 0, None
        for name in names:
            try:
                files.shred(self._directory / name)
                number += 1
            except FileError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return number
