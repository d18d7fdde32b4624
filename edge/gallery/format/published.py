"""A published directory: where things are in it, and what its signed metadata say of a gallery.

Who publishes and who fetches have this from here. Touches no file, and checks neither a signature nor a seal.
"""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import GalleryError, SignatureError
from edge.core.ids import is_slug
from edge.gallery.format.bundle import MAX_BUNDLE_BYTES
from edge.gallery.format.seal import HEADER, TAG_BYTES
from edge.gallery.gallery import MAX_MODEL_ID_CHARS, MAX_ROWS

MODELS = "models"
"""The role that signs models."""

MAX_TARGET_BYTES = MAX_BUNDLE_BYTES + HEADER.size + TAG_BYTES
"""Of a sealed gallery."""

Kind = Literal["full", "delta", "next"]
"""The whole gallery, the difference to it, or the candidate: the gallery that may be switched to.

Doors of every release know the candidate as `next`.
"""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|\*")


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


def check_scope(name: str, what: str) -> str:
    """Return `name` if it is safe in a path, a pattern and a role's name; `what` says whose name it is.

    Raises:
        GalleryError: It is not.
    """
    if not is_slug(name):
        raise GalleryError(f"{what} {name[:40]!r} cannot be in a path; use 1 to 32 of a-z, 0-9 and -")
    return name


def scope_role(scope: str) -> str:
    """Return the name of the role that signs the galleries of a scope."""
    return f"scope-{scope}"


def scope_paths(scope: str) -> list[str]:
    """Return what the role of a scope may sign."""
    return [f"galleries/{scope}/*"]


def full_path(scope: str) -> str:
    """Return where the whole gallery of a scope is; its version is said in the signed metadata."""
    return f"galleries/{scope}/full.edge"


def candidate_path(scope: str) -> str:
    """Return where the candidate of a scope is: the same people, of another embedder."""
    return f"galleries/{scope}/next.edge"


def delta_path(scope: str, base: int) -> str:
    """Return where the difference from version `base` to the current gallery of a scope is."""
    return f"galleries/{scope}/from-{base}.edge"


def model_path(name: str, file: str) -> str:
    """Return where a file of a model is.

    Raises:
        GalleryError: A name cannot be in a path.
    """
    for part in (name, file):
        if not _FILE.fullmatch(part):
            raise GalleryError(
                f"the name {part[:40]!r} cannot be in a path; use letters, digits, '.' and '-'"
            )
    return f"models/{name}/{file}"
