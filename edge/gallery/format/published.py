"""Where things are in a published directory: one answer for `authoring` and `sync`. Touches no file."""

import re

from edge.core.errors import GalleryError
from edge.core.slug import is_slug

MODELS = "models"
"""The role that signs models."""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}|\*")


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


def next_path(scope: str) -> str:
    """Return where the gallery is that a scope may be switched to: the same people, of another embedder."""
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
