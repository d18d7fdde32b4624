"""What a site says through a store that is not its own, and how it knows its own words again.

Every entry is a text with a MAC, under a key that follows from the site's secret and bound to the collection:
whoever owns the store can leave entries out or bring back a whole earlier upload, but neither write nor
change one, nor move it to another collection. It hides nothing.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from edge.core.errors import RemoteGalleryError
from edge.core.types import FloatArray
from edge.gallery.format.rows import are_unit, rows_of

KEY_BYTES = 32
"""Of HMAC-SHA-256."""


class RowSigner:
    """Signs and recognises the entries of one collection by the site's `secret`."""

    def __init__(self, secret: bytes, collection: str) -> None:
        # One secret, two uses: the rotation's stream and this key must not follow from each other.
        self._key = HKDF(SHA256(), KEY_BYTES, None, b"edge remote gallery: entries").derive(secret)
        self._collection = collection

    def sign(self, kind: str, said: Mapping[str, object]) -> dict[str, str]:
        """Return an entry that says this, to be kept anywhere. `kind` is what an entry may be read as."""
        text = json.dumps({**said, "kind": kind}, separators=(",", ":"))
        return {"said": text, "mac": self._mac(text)}

    def read(self, kind: str, entry: Mapping[str, object]) -> dict[str, Any]:
        """Return what a signed entry says.

        Raises:
            RemoteGalleryError: This site did not say it, or not as an entry of this kind.
        """
        text, mac = entry.get("said"), entry.get("mac")
        known = isinstance(text, str) and isinstance(mac, str) and mac.isascii()
        if not known or not hmac.compare_digest(self._mac(str(text)), str(mac)):
            raise RemoteGalleryError(
                "the remote gallery holds an entry that this site's secret did not sign; upload it again, "
                "and look who else writes there"
            )
        said: dict[str, Any] = json.loads(str(text))
        if said.get("kind") != kind:
            raise RemoteGalleryError(f"the remote gallery gave another entry for one of kind {kind!r}")
        return said

    def _mac(self, text: str) -> str:
        # JSON, so that no two pairs of collection and text are signed as one.
        signed = json.dumps([self._collection, text]).encode()
        return hmac.digest(self._key, signed, "sha256").hex()


def row_of(text: object, dim: int) -> FloatArray:
    """Return the unit row (`dim`,) that `rows_text` wrote: what a store does to its vectors does not count.

    Raises:
        RemoteGalleryError: It is none, or of another length.
    """
    try:
        rows = rows_of(str(text), dim)
    except ValueError:
        rows = np.empty((0, dim), np.float32)
    if len(rows) != 1 or not are_unit(rows):
        raise RemoteGalleryError("the remote gallery holds a row that is no template of this embedder")
    row: FloatArray = rows[0]
    return row
