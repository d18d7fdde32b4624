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

from edge import safefile
from edge.errors import FleetError
from edge.gallery.seal import new_key

ONLINE_ROLES = ("snapshot", "timestamp")
KEY_ID_CHARS = 16
"""Of the 64 of a key id; enough to tell an operator's few keys apart."""

MAX_PEM_BYTES = 4096


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
        path = self._folder(role) / f"{role}-{public.keyid[:KEY_ID_CHARS]}.pem"
        _prepare(path.parent)
        safefile.write_whole(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return public

    def signer(self, role: str, key: Key) -> Signer | None:
        """Return what signs with `key` for `role`, None where the private half is not here.

        Raises:
            FleetError: It is here and cannot be used: damaged, readable by others, or another passphrase.
        """
        path = self._folder(role) / f"{role}-{key.keyid[:KEY_ID_CHARS]}.pem"
        pem = safefile.read_bounded(path, MAX_PEM_BYTES)
        if pem is None:
            return None
        safefile.check_private(path)
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
        path = self._sealing(scope)
        _prepare(path.parent)
        if not path.exists():
            safefile.write_key(path, new_key())

    def sealing(self, scope: str) -> bytes:
        """Return the sealing key of a scope.

        Raises:
            FleetError: It is not there or cannot be used.
        """
        return safefile.read_key(self._sealing(scope))

    def _folder(self, role: str) -> Path:
        return self.directory / ("online" if role in ONLINE_ROLES else "offline")

    def _sealing(self, scope: str) -> Path:
        return self.directory / "sealing" / f"{scope}.key"


def _prepare(directory: Path) -> None:
    try:
        for folder in (directory.parent, directory):
            folder.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(f"{directory}: cannot be made: {error.strerror}") from None
