"""Sealed bytes open only with their key and only as what they are."""

from dataclasses import replace

import pytest

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.gallery.format.seal import HEADER, Binding, is_sealed, new_key, seal, unseal

BINDING = Binding("acme", "hq-door-03", "sface-int8@0123abcd", 57)
KEY = bytes(range(32))
PLAIN = b"rows of a gallery" * 100


def test_what_was_sealed_opens_and_cannot_be_read_before():
    sealed = seal(PLAIN, KEY, BINDING)
    assert unseal(sealed, KEY, BINDING) == PLAIN
    assert is_sealed(sealed)
    assert b"rows of a gallery" not in sealed
    assert seal(PLAIN, KEY, BINDING) != sealed  # a nonce is never used twice


@pytest.mark.parametrize(
    ("key", "binding"),
    [
        pytest.param(new_key(), BINDING, id="another key"),
        pytest.param(KEY, replace(BINDING, tenant="other"), id="another tenant"),
        pytest.param(KEY, replace(BINDING, scope="hq-door-04"), id="another door"),
        pytest.param(KEY, replace(BINDING, model_id="sface-fp32@0123abcd"), id="another model"),
        pytest.param(KEY, replace(BINDING, version=56), id="another version"),
        pytest.param(KEY, Binding("acm", "ehq-door-03", BINDING.model_id, 57), id="fields that run together"),
    ],
)
def test_it_opens_for_nobody_else_and_as_nothing_else(key: bytes, binding: Binding):
    with pytest.raises(GalleryIntegrityError, match="does not open"):
        unseal(seal(PLAIN, KEY, BINDING), key, binding)


def test_every_altered_byte_and_every_length_is_noticed():
    sealed = seal(PLAIN[:40], KEY, BINDING)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(GalleryError):
            unseal(bytes(altered), KEY, BINDING)
        with pytest.raises(GalleryError):
            unseal(sealed[:position], KEY, BINDING)


def test_a_newer_format_is_no_damage():
    sealed = seal(PLAIN, KEY, BINDING)
    newer = sealed[:8] + (2).to_bytes(4, "little") + sealed[12:]
    with pytest.raises(GalleryError, match="update edge") as caught:
        unseal(newer, KEY, BINDING)
    assert not isinstance(caught.value, GalleryIntegrityError)
    assert HEADER.size == 24
