"""JSON as signed messages have to be: UTF-8, no key twice, no NaN, not nested beyond reason."""

import json
from typing import Any


def strict_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data` is.

    Raises:
        ValueError: It is none; says why.
    """
    try:
        found = json.loads(data, object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON document: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
