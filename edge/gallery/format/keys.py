"""The key that templates are encrypted under on this device.

It comes from systemd's credentials (encrypted with the TPM where there is one) or from a file of mode 0600.
Encrypts nothing itself (`seal`).
"""

import logging
from pathlib import Path

from edge.core import files as safefile
from edge.core.errors import FileError
from edge.gallery.format.seal import new_key

log = logging.getLogger(__name__)


def device_key(path: Path, *, make: bool) -> bytes:
    """Return this device's key, 32 bytes; made at first use where `make` allows it.

    Raises:
        FileError: It is not there, no key, readable by others, or cannot be written.
    """
    if make and not path.exists():
        try:
            path.parent.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{path.parent}: cannot be made: {error.strerror}") from None
        safefile.write_key(path, new_key())
        log.warning("a device key was made beside the gallery: whoever copies the disk has both")
    try:
        return safefile.read_key(path)
    except FileError as error:
        raise FileError(f"device key: {error}") from None
