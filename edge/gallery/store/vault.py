"""Versions of the gallery as they lie on this device's disk: encrypted, each under a data key of its own.

    0     magic "EDGEREST"
    8     format u32, length of the model id u32
    16    key id: which device key wraps the data key, 8 bytes
    24    data key, sealed under the device key, 72 bytes
    96    model id, UTF-8
    ...   the bundle (`bundle`), sealed under the data key (`seal`)

Both are bound to the model and the version: a version under another's name does not open. Whoever has the
disk and not the device key has nothing. Deleting overwrites the data key before the file goes; on flash
memory, which keeps old blocks, what is left of it is worth nothing without the device key either.

Which version serves is `store`'s business.
"""

import hashlib
from pathlib import Path
from struct import Struct, error

from edge.core.errors import DeviceKeyError, FileError, GalleryError, GalleryIntegrityError, KeyFileError
from edge.gallery.format.bundle import decode, encode
from edge.gallery.format.seal import HEADER as SEAL
from edge.gallery.format.seal import KEY_BYTES, TAG_BYTES, Binding, new_key, seal, unseal
from edge.gallery.gallery import MAX_MODEL_ID_CHARS, Gallery
from edge.gallery.store.sealed import device_key
from edge.gallery.store.versions import VersionFiles

MAGIC = b"EDGEREST"
FORMAT = 1
HEADER = Struct("<8sII8s")
"""Magic, format, bytes of the model id, key id."""

WRAPPED_BYTES = SEAL.size + KEY_BYTES + TAG_BYTES
"""Of the data key as it is sealed under the device key."""

KEY_ID_BYTES = 8
"""Of SHA-256; tells the few keys apart that a device may ever have had."""


class Vault:
    """Writes and reads galleries. `key` is the file of the device's key, made at first use if `make_key`."""

    def __init__(self, files: VersionFiles, key: Path, *, make_key: bool) -> None:
        self._files = files
        self._key = key
        self._make_key = make_key

    def write(self, gallery: Gallery) -> None:
        """Write a gallery as a new version, or in the place of one that loses subjects.

        Raises:
            GalleryError: The disk is full or read-only, or the device's key cannot be used.
        """
        data = encrypt(encode(gallery), gallery.model_id, gallery.version, self.key_to_write())
        self._files.write(gallery.version, data)

    def read(self, version: int) -> Gallery:
        """Return a version.

        Raises:
            FileNotFoundError: It is not there (any more).
            GalleryIntegrityError: Torn, altered, or another version than its name says.
            DeviceKeyError: The device has no key, or another one is needed.
            GalleryError: It, or the device's key, cannot be read.
        """
        data = self._files.read(version)
        gallery = decode(decrypt(data, version, self.key()))
        if gallery.version != version:
            raise GalleryIntegrityError(f"the file of version {version} holds version {gallery.version}")
        return gallery

    def key(self) -> bytes:
        """Return the device's key.

        Raises:
            GalleryError: It cannot be read.
        """
        return self._device_key(False)

    def key_to_write(self) -> bytes:
        """Return the device's key, made where nothing was written yet.

        One that is lost is not replaced in silence: what it opened would be lost with it.

        Raises:
            GalleryError: It cannot be read or made.
        """
        make = self._make_key and not self._files.versions() and not self._files.set_aside_versions()
        return self._device_key(make)

    def _device_key(self, make: bool) -> bytes:
        try:
            return device_key(self._key, make=make)
        except KeyFileError as problem:
            raise DeviceKeyError(f"the gallery is encrypted: {problem}") from None
        except FileError as problem:
            raise GalleryError(f"the gallery is encrypted: {problem}") from None


def encrypt(bundle: bytes, model_id: str, version: int, key: bytes) -> bytes:
    """Return a bundle as it lies on the disk, under a device key of 32 bytes."""
    data_key, binding, name = new_key(), _binding(model_id, version), model_id.encode()
    header = HEADER.pack(MAGIC, FORMAT, len(name), _key_id(key))
    return b"".join((header, seal(data_key, key, binding), name, seal(bundle, data_key, binding)))


def decrypt(data: bytes, version: int, key: bytes) -> bytes:
    """Return the bundle that `encrypt` was given.

    Raises:
        GalleryIntegrityError: Truncated, altered, or written as another version.
        DeviceKeyError: Encrypted under another device key.
        GalleryError: Of a format that only a newer version reads.
    """
    try:
        magic, number, length, key_id = HEADER.unpack_from(data)
    except error:
        raise GalleryIntegrityError("the file is truncated") from None
    if magic != MAGIC or length > 4 * MAX_MODEL_ID_CHARS:
        raise GalleryIntegrityError("this is not an encrypted gallery")
    if number != FORMAT:
        raise GalleryError(f"encrypted gallery: format {number} is unknown, {FORMAT} is read; update edge")
    start = HEADER.size + WRAPPED_BYTES
    try:
        binding = _binding(data[start : start + length].decode(), version)
    except UnicodeDecodeError:
        raise GalleryIntegrityError("the file is altered") from None
    if key_id != _key_id(key):
        raise DeviceKeyError(
            "the gallery is encrypted under another device key; bring that one back, or move "
            "the directory away and enrol again"
        )
    data_key = unseal(data[HEADER.size : start], key, binding)
    return unseal(data[start + length :], data_key, binding)


def _binding(model_id: str, version: int) -> Binding:
    return Binding("device", "gallery", model_id, version)


def _key_id(key: bytes) -> bytes:
    """Return what tells device keys apart and says nothing about them."""
    return hashlib.sha256(b"edge device key" + key).digest()[:KEY_ID_BYTES]
