"""Signed messages: DSSE envelopes with ed25519 keys, for what is pushed to a device over MQTT.

Says who signed which bytes for which purpose. What the bytes ask for, whom they are for, and whether they are
too old is the receiver's business; private keys are kept by `fleet.keyring`.

Source: the Dead Simple Signing Envelope v1.0.2, protocol.md and envelope.md (secure-systems-lab/dsse).
"""

import base64
import binascii
import json
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # type: ignore[attr-defined]

from edge.core.errors import EnvelopeError

KEY_PREFIX = "ed25519:"
"""What a public key begins with where people write one: in a setting, in what `edge config keygen` prints."""

KEY_BYTES = 32
MAX_SIGNATURES = 8


def public_text(private: Ed25519PrivateKey) -> str:
    """Return the public half as people write it: `ed25519:` and base64."""
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return KEY_PREFIX + base64.b64encode(raw).decode()


def public_key(text: str) -> Key:
    """Return the key that `public_text` wrote.

    Raises:
        EnvelopeError: It is not one.
    """
    try:
        raw = base64.b64decode(text.removeprefix(KEY_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not text.startswith(KEY_PREFIX) or len(raw) != KEY_BYTES:
        raise EnvelopeError(f"a public key is {KEY_PREFIX} and {KEY_BYTES} bytes in base64")
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw))


def sign(payload: bytes, payload_type: str, keys: Iterable[Ed25519PrivateKey]) -> bytes:
    """Return the envelope, JSON in UTF-8: a payload signed with each key for the purpose `payload_type`."""
    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(CryptoSigner(key))
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode()


def opened(data: bytes, payload_type: str, trusted: Iterable[str], max_bytes: int) -> bytes:
    """Return the payload of an envelope that a trusted key has signed; as `opened_by`."""
    return opened_by(data, payload_type, trusted, max_bytes)[0]


def opened_by(data: bytes, payload_type: str, trusted: Iterable[str], max_bytes: int) -> tuple[bytes, str]:
    """Return the payload of an envelope signed for the purpose `payload_type`, and a trusted key that did.

    `trusted` holds public keys as people write them. Signatures of unknown keys prove nothing and harm
    nothing; one that names a trusted key and does not fit refuses the whole.

    Raises:
        EnvelopeError: Too large, no envelope, for another purpose, or not signed by a trusted key.
    """
    if len(data) > max_bytes:
        raise EnvelopeError(f"{len(data)} bytes are more than the {max_bytes} allowed", "too_large")
    keys = {(key := public_key(text)).keyid: (key, text) for text in trusted}
    if not keys:
        raise EnvelopeError("no key is trusted here for this; name one in the settings", "no_trusted_key")
    envelope = _parsed(data)
    if envelope.payload_type != payload_type:
        raise EnvelopeError(f"signed for another purpose than {payload_type}", "purpose")
    believed = None
    for key_id, signature in envelope.signatures.items():
        if key_id not in keys:
            continue
        key, text = keys[key_id]
        try:
            key.verify_signature(signature, envelope.pae())
        except LibraryError:
            raise EnvelopeError(
                "a signature does not fit; altered, or signed with another key", "signature"
            ) from None
        believed = text
    if believed is None:
        raise EnvelopeError("not signed by a key that is trusted here", "untrusted_key")
    return envelope.payload, believed


def _parsed(data: bytes) -> Envelope:
    try:
        document = json.loads(data)
        if len(document["signatures"]) > MAX_SIGNATURES or not isinstance(document["payloadType"], str):
            raise ValueError
        return Envelope.from_dict(document)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, LibraryError):
        raise EnvelopeError("this is not a signed envelope (DSSE in JSON)", "no_envelope") from None
