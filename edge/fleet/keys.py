"""The operator's keys on disk: signing keys (ed25519) and one sealing key per scope. Signs nothing itself.

    keys/offline/<role>-<key id>.pem    root, targets, models, scopes: only needed to publish; keep them apart
    keys/online/<role>-<key id>.pem     snapshot, timestamp: needed to renew what is published
    keys/sealing/<scope>.key            opens the galleries of a scope; its devices have a copy

Files of mode 0600; PKCS #8, encrypted where a passphrase is given. A key file that is absent is no error
until it is needed: `offline` may live on a stick.
"""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Key, Signer  # type: ignore[attr-defined]

from edge.core import files
from edge.core.errors import ConfigError, FleetError
from edge.gallery.format.seal import MAX_KEYS, new_key

ONLINE_ROLES = ("snapshot", "timestamp")
KEY_ID_CHARS = 16
"""Of the 64 of a key id; enough to tell an operator's few keys apart."""

MAX_PEM_BYTES = 4096
MAX_PASSPHRASE_BYTES = 1024
"""More than anybody types."""


class KeyRing:
    """The keys in one directory; `passphrase` encrypts new signing keys and opens old ones."""

    def __init__(self, directory: Path, passphrase: str | None = None) -> None:
        self.directory = directory
        self._passphrase = passphrase.encode() if passphrase else None

    def create(self, role: str) -> Key:
        """Make a signing key for a role, keep it, and return its public half.

        Raises:
            FleetError: It cannot be written.
        """
        private = Ed25519PrivateKey.generate()
        public = CryptoSigner(private).public_key
        encryption = BestAvailableEncryption(self._passphrase) if self._passphrase else NoEncryption()
        path = self.signing_path(role, public.keyid)
        _prepare(path.parent)
        files.write_whole(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return public

    def signer(self, role: str, key: Key) -> Signer | None:
        """Return what signs with `key` for `role`, None where the private half is not here.

        Raises:
            FleetError: It is here and cannot be used: damaged, readable by others, or another passphrase.
        """
        path = self.signing_path(role, key.keyid)
        pem = files.read_bounded(path, MAX_PEM_BYTES)
        if pem is None:
            return None
        files.check_private(path)
        try:
            private = load_pem_private_key(pem, self._passphrase)
        except (ValueError, TypeError):
            # TypeError: a passphrase for a plain key, or none for an encrypted one
            raise FleetError(f"{path}: cannot be opened: damaged, or not with this passphrase") from None
        signer = CryptoSigner(private)
        if signer.public_key.keyid != key.keyid:
            raise FleetError(f"{path}: this is another key than the one that the fleet trusts")
        return signer

    def create_sealing(self, scope: str) -> None:
        """Make the sealing key of a scope. One that is there is kept: its devices have it."""
        path = self.sealing_path(scope)
        _prepare(path.parent)
        if not path.exists():
            files.write_key(path, new_key())

    def sealing(self, scope: str) -> tuple[bytes, ...]:
        """Return the sealing keys of a scope: what galleries are sealed with, then one that is to follow it.

        Raises:
            FileError: There is none or it cannot be used.
        """
        return files.read_keys(self.sealing_path(scope), MAX_KEYS)

    def prepare_sealing(self, scope: str) -> tuple[bytes, ...]:
        """Make the sealing key that is to follow a scope's, unless that is made already; return both.

        Raises:
            FileError: There is none to follow, or it cannot be written.
        """
        keys = self.sealing(scope)
        if len(keys) < MAX_KEYS:
            keys = (*keys, new_key())
            files.write_key(self.sealing_path(scope), *keys)
        return keys

    def follow_sealing(self, scope: str) -> None:
        """Forget the sealing key that was in use; the one that was to follow it is it now.

        Raises:
            FileError: It cannot be written.
        """
        files.write_key(self.sealing_path(scope), self.sealing(scope)[-1])

    def sealing_path(self, scope: str) -> Path:
        """Return the file with the sealing keys of a scope: what its doors need, too."""
        return self.directory / "sealing" / f"{scope}.key"

    def signing_path(self, role: str, key_id: str) -> Path:
        """Return the file of a signing key."""
        folder = "online" if role in ONLINE_ROLES else "offline"
        return self.directory / folder / f"{role}-{key_id[:KEY_ID_CHARS]}.pem"


def key_ring(directory: Path, passphrase_file: Path | None) -> KeyRing:
    """Return the keys in a directory; the first line of a file is their passphrase.

    Raises:
        ConfigError: The file has no passphrase.
    """
    if passphrase_file is None:
        return KeyRing(directory)
    data = files.read_bounded(passphrase_file, MAX_PASSPHRASE_BYTES) or b""
    passphrase = data.decode(errors="replace").split("\n")[0]
    if not passphrase:
        raise ConfigError(f"{passphrase_file}: holds no passphrase; write it into the first line")
    return KeyRing(directory, passphrase)


def _prepare(directory: Path) -> None:
    for folder in (directory.parent, directory):
        files.make_private_directory(folder, FleetError)
