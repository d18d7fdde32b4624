"""Signed messages: what a trusted key signed is believed, everything else is refused in one line."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.core.errors import EnvelopeError
from edge.mqtt.contract.envelope import opened, public_key, public_text, sign

TYPE = "application/vnd.edge.test+json"
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
TRUSTED = (public_text(KEY),)


def believed(data: bytes, trusted: tuple[str, ...] = TRUSTED) -> bytes:
    return opened(data, TYPE, trusted, 4096)


def test_what_a_trusted_key_signed_is_believed():
    assert believed(sign(b"{}", TYPE, [KEY])) == b"{}"
    assert believed(sign(b"", TYPE, [KEY])) == b""


def test_one_of_several_trusted_keys_is_enough_so_that_keys_can_be_changed():
    assert believed(sign(b"x", TYPE, [OTHER]), (*TRUSTED, public_text(OTHER))) == b"x"
    assert believed(sign(b"x", TYPE, [OTHER, KEY])) == b"x"


def changed(**changes: Any) -> bytes:
    document = json.loads(sign(b"payload", TYPE, [KEY]))
    return json.dumps({**document, **changes}).encode()


def signature(key: Ed25519PrivateKey, claimed: Ed25519PrivateKey) -> dict[str, str]:
    made = json.loads(sign(b"payload", TYPE, [key]))["signatures"][0]
    return {"keyid": public_key(public_text(claimed)).keyid, "sig": made["sig"]}


DEEP = b'{"signatures":' + b"[" * 1500 + b"]" * 1500 + b"}"

ATTACKS = [
    pytest.param(b"", "not a signed envelope", id="empty"),
    pytest.param(b"\xff\xfe{", "not a signed envelope", id="not UTF-8"),
    pytest.param(b"[]", "not a signed envelope", id="no object"),
    pytest.param(b"null", "not a signed envelope", id="null"),
    pytest.param(b'{"signatures": 7}', "not a signed envelope", id="no list"),
    pytest.param(DEEP, "not a signed envelope", id="deep JSON"),
    pytest.param(b"x" * 4097, "more than the 4096", id="too large"),
    pytest.param(b"payload", "not a signed envelope", id="the bare payload"),
    pytest.param(changed(signatures=[]), "not signed by a key", id="unsigned"),
    pytest.param(changed(payload=base64.b64encode(b"other").decode()), "does not fit", id="altered payload"),
    pytest.param(changed(payload="\u00e4"), "not a signed envelope", id="payload is no base64"),
    pytest.param(changed(payloadType="text/plain"), "another purpose", id="another purpose"),
    pytest.param(changed(payloadType=7), "not a signed envelope", id="purpose is a number"),
    pytest.param(sign(b"payload", "other", [KEY]), "another purpose", id="signed for another purpose"),
    pytest.param(sign(b"payload", TYPE, [OTHER]), "not signed by a key", id="wrong key"),
    pytest.param(changed(signatures=[signature(OTHER, KEY)]), "does not fit", id="claims the trusted key"),
    pytest.param(
        changed(signatures=[signature(KEY, KEY), signature(KEY, KEY)]),
        "not a signed",
        id="the same key twice",
    ),
    pytest.param(
        changed(signatures=[signature(OTHER, OTHER), signature(OTHER, KEY)]),
        "does not fit",
        id="two, one bad",
    ),
    pytest.param(
        changed(signatures=[{"keyid": "a", "sig": "!"}]), "not a signed", id="signature is no base64"
    ),
    pytest.param(changed(signatures=[signature(OTHER, OTHER)] * 9), "not a signed", id="nine signatures"),
    pytest.param(changed(signatures=[None]), "not a signed", id="signature is null"),
]


@pytest.mark.parametrize(("data", "why"), ATTACKS)
def test_everything_else_is_refused_and_says_why(data: bytes, why: str):
    with pytest.raises(EnvelopeError, match=why):
        believed(data)


def test_with_no_trusted_key_nothing_is_believed():
    with pytest.raises(EnvelopeError, match="no key is trusted"):
        believed(sign(b"x", TYPE, [KEY]), ())


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:" + "A" * 44, "ed25519:" + "!" * 44])
def test_what_is_no_public_key_is_refused(text: str):
    with pytest.raises(EnvelopeError, match="a public key is"):
        public_key(text)
