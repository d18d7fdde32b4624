"""What the signed metadata say of a gallery that is offered: whose it is, which version, of which embedder.

That they are signed is known before (`trust`); that what is sealed is as they say is checked after (`sync`).
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import SignatureError
from edge.gallery.format.bundle import MAX_BUNDLE_BYTES
from edge.gallery.format.seal import HEADER, TAG_BYTES
from edge.gallery.gallery import MAX_MODEL_ID_CHARS, MAX_ROWS

MAX_TARGET_BYTES = MAX_BUNDLE_BYTES + HEADER.size + TAG_BYTES

Kind = Literal["full", "delta", "next"]


class Offer(BaseModel):
    """One gallery, or the difference to it; `empty`: that nobody is in it is meant."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    scope: str
    version: int = Field(ge=1, lt=2**63)
    model_id: str = Field(min_length=1, max_length=MAX_MODEL_ID_CHARS)
    count: int = Field(ge=0, le=MAX_ROWS)
    kind: Kind
    base: int | None
    model: str | None = Field(None, pattern="^[a-z0-9][a-z0-9-]{0,31}$")
    empty: bool = False


def read_offer(said: object, length: int, sha256: str | None, kind: Kind, scope: str) -> Offer:
    """Return what is `said` of a target of a scope; `length` in bytes.

    Raises:
        SignatureError: It makes no sense, or it would lock everybody out without saying so.
    """
    try:
        offer = Offer.model_validate(said)
    except ValidationError as error:
        raise SignatureError(
            f"what is signed about the gallery of scope {scope!r} has {error.error_count()} mistakes; "
            "publish it again"
        ) from None
    if (offer.scope, offer.kind) != (scope, kind) or sha256 is None or length > MAX_TARGET_BYTES:
        raise SignatureError(f"what is signed for scope {scope!r} is no gallery of it; publish it again")
    if not offer.count and not offer.empty:
        raise SignatureError(
            f"gallery version {offer.version} is empty and would lock everybody out; nobody has signed that "
            "this is meant: publish it with --allow-empty"
        )
    return offer
