"""Text from elsewhere: fit to be shown, rid of credentials, read as strict JSON; what is wrong with it."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args
from urllib.parse import urlsplit, urlunsplit

from pydantic_core import ValidationError  # pydantic has the same and takes long to load

HIDDEN = "***"
"""What is shown in place of credentials."""

FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for the beginning of a formula. Source: OWASP, CSV injection."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character of UTF-16. Source: RFC 8259, section 8.2: what becomes of one is not predictable."""

MAX_WHERE_CHARS = 80
MAX_WHAT_CHARS = 120
"""How much of a problem is told to somebody else: a key that others wrote may be as long as they like."""


class Problem(NamedTuple):
    """What is wrong with one value of a document: `clips.0.from_s: what`; `kind` is pydantic's type."""

    where: str
    what: str
    kind: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def printable(text: str) -> str:
    """Return a text as one line that drives no terminal: what cannot be printed is told as an escape."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cell(text: str) -> str:
    """Return a text for a CSV file: printable, and with a `'` before what a spreadsheet would compute."""
    shown = printable(text)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def without_credentials(source: str) -> str:
    """Return a camera's source that is safe to show: no user, password, query or fragment of a URL.

    Passwords hold characters that nobody escaped: where that leaves in doubt what is host and what is
    password, all of it is hidden.
    """
    try:
        parts = urlsplit(source)
        _ = parts.port  # ValueError: "user:pass", where a "/", "?" or "#" cut off the "@" and the host
    except ValueError:
        return f"{source.partition(':')[0]}://{HIDDEN}"
    if not parts.scheme or (not parts.netloc and "@" not in source):
        return source
    if not parts.netloc or "@" in parts.path + parts.query + parts.fragment:
        return f"{parts.scheme}://{HIDDEN}"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def scrub(text: str) -> str:
    """Return a text in which no URL has a user, a password or a query."""
    text = re.sub(r"(\w+:/*)\S*@", r"\1", text)
    return re.sub(r"(\w+://[^\s?#]*)[?#]\S*", rf"\1?{HIDDEN}", text)


def first_line(error: Exception) -> str:
    """Return the first line that an error of a library says; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def strict_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that `data` is, as strict as signed messages have to be.

    Raises:
        ValueError: It is not UTF-8, no object or nested too deeply, or has a key twice, a NaN or half a
            character (a lone surrogate, which nothing can write down); says which.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON document: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    if b"\\u" in data and SURROGATE.search(json.dumps(found, ensure_ascii=False)):
        raise ValueError("it has half a character, a lone surrogate")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def problems(error: ValidationError, whole: str = "all of it") -> list[Problem]:
    """Return what is wrong with a document, without the values, which may be secrets; keys are printable.

    `whole` is the place of what is wrong with no value in particular.
    """
    return [
        Problem(printable(".".join(map(str, each["loc"]))) or whole, _in_words(each), each["type"])
        for each in error.errors(include_url=False, include_input=False)
    ]


def _in_words(problem: Any) -> str:
    """Return what pydantic says; a pattern that a text does not match is told in words."""
    if problem["type"] != "string_pattern_mismatch":
        return str(problem["msg"])
    pattern = problem["ctx"]["pattern"]
    if simple := re.fullmatch(r"\^\[([^]^\\]+)\]\{(\d+)(?:,(\d+))?\}\$", pattern):
        *kinds, last = re.findall(r".-.|.", simple[1])
        counts = f"{simple[2]} to {simple[3]}" if simple[3] else simple[2]
        return f"must be {counts} of {', '.join(kinds)}{' and ' if kinds else ''}{last}"
    return "is not written as it has to be"


def first_problem(error: ValidationError, whole: str = "all of it") -> str:
    """Return the first thing that is wrong with a document as `place: what`, short and without the value."""
    where, what, kind = problems(error, whole)[0]
    return str(Problem(where[:MAX_WHERE_CHARS], what[:MAX_WHAT_CHARS], kind))


def key_problems(error: ValidationError, whole: str, form: Any = None) -> list[Problem]:
    """Return what is wrong with a file that people write, in words for them; values are left out.

    `form` is the pydantic model of the file: by it a misspelt key is told beside the one that is like it.
    """
    places = [
        each["loc"] for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return [
        Problem(where, f"unknown key; {_meant(place, form)}", kind)
        if kind == "extra_forbidden"
        else Problem(where, uncapitalized(what.removeprefix("Value error, ")), kind)
        for (where, what, kind), place in zip(problems(error, whole), places, strict=True)
    ]


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """Return what to do about a key that is unknown: the known one that is like it, if any."""
    like = get_close_matches(key, known, 1)
    return f"did you mean {like[0]}?" if like else "remove it or correct its spelling"


def _meant(place: Sequence[str | int], form: Any) -> str:
    for step in place[:-1]:
        fields = getattr(form, "model_fields", {})
        form = fields[step].annotation if step in fields else form
        form = next((each for each in get_args(form) if hasattr(each, "model_fields")), form)
    return did_you_mean(str(place[-1]), list(getattr(form, "model_fields", ())))


def uncapitalized(text: str) -> str:
    """Return a sentence as it stands after a colon."""
    return text[:1].lower() + text[1:]
