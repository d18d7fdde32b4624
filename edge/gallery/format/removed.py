"""Who was taken out of the galleries of a scope: a list for doors of every embedder.

A gallery of another embedder than its own says nothing to a door that cannot use it; this list does. It lies
beside the galleries of its scope, signed and sealed as they are, and holds each id as a hash: a door finds
whom it knows, and nobody else is named. Touches no file.
"""

import hashlib
import json
from collections.abc import Collection

from edge.core.errors import GalleryError
from edge.gallery.format.seal import Binding

HASH_CHARS = 16
"""Of SHA-256, in hexadecimal digits."""

MAX_REMOVED_BYTES = 16 << 20
"""Some 800,000 hashes of 16 digits with their quotes and commas."""


def subject_hash(subject_id: str) -> str:
    """Return what lists and audits call a subject: found by who knows the id, and telling nobody else."""
    return hashlib.sha256(subject_id.encode()).hexdigest()[:HASH_CHARS]


def removed_path(scope: str) -> str:
    """Return where the list of a scope is."""
    return f"galleries/{scope}/removed.edge"


def removed_binding(tenant: str, scope: str) -> Binding:
    """Return what the list is sealed as: of no model, and replaced as a whole."""
    return Binding(tenant, scope, "removed", 1)


def encode_removed(hashes: Collection[str]) -> bytes:
    """Return a list as bytes; equal lists give equal bytes.

    Raises:
        GalleryError: More were removed than a list can hold.
    """
    data = json.dumps({"removed": sorted(hashes)}, separators=(",", ":")).encode()
    if len(data) > MAX_REMOVED_BYTES:
        raise GalleryError(
            f"{len(hashes)} subjects were removed from one scope; make a new scope for its doors"
        )
    return data


def decode_removed(data: bytes) -> frozenset[str]:
    """Return the hashes that `encode_removed` was given.

    Raises:
        GalleryError: They are none.
    """
    try:
        hashes = json.loads(data)["removed"]
        return frozenset(str(each) for each in hashes)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise GalleryError("the list of removed subjects cannot be read; publish the gallery again") from None
