"""Folders of photos that lie in a store: S3 and what else fsspec knows. Reads no photo (`photo`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from edge.core.errors import ConfigError, EdgeError, MediaError, PhotoStoreError, UsageError

STORED = "://"
"""In the name of a photo or folder that lies in a store: no path of this machine holds it."""


def photo_folder(text: str) -> Path:
    """Return a folder of photos: a path, or the address of one in a store, as `s3://bucket/folder`.

    What such a one holds is listed here, once. What stands for a path in it behaves like one (UPath). The
    store's key and server come from the environment and are in no path.

    Raises:
        UsageError: The address holds a password, or is a web server's.
        ConfigError: The extra `store` is not installed.
        MediaError: There is no such folder.
        PhotoStoreError: The store does not answer, or not to this key.
    """
    if STORED not in text:
        return Path(text)
    address = urlsplit(text)
    if address.password or address.query:
        raise UsageError(f"{address.scheme}://{address.hostname}/...: an address of photos holds no password")
    if address.scheme in ("http", "https"):
        raise UsageError(f"{text}: a web server lists no folders; use a store, as s3://bucket/folder")
    try:
        from upath import UPath
    except ImportError:
        raise ConfigError(f"{text}: install the extra `store` to read photos from there") from None
    with told_of_store(text):
        folder = UPath(text.rstrip("/"))
        if not folder.fs.find(folder.path):
            raise MediaError(f"{text}: no photos; there is no such folder, or it is empty")
    return cast(Path, folder)


@contextmanager
def told_of_store(place: object) -> Iterator[None]:
    """Rename what a store raises: every kind of store has its own errors, most of them no OSError."""
    try:
        yield
    except EdgeError:
        raise
    except FileNotFoundError:
        raise MediaError(f"{place}: there is no such photo or bucket") from None
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise PhotoStoreError(f"{place}: the store gives no answer that can be used: {why}") from None
