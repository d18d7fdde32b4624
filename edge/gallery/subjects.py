"""What a subject may be called. Keeps no subjects and knows no templates."""

from edge.core.errors import GalleryError
from edge.core.types import Subject

MAX_ID_CHARS = 64
MAX_LABEL_CHARS = 128
MAX_GROUPS = 16
MAX_GROUP_CHARS = 32
MAX_CONSENT_CHARS = 64
MAX_NOTES_CHARS = 256
"""These bounds keep the table of a bundle within `bundle.MAX_TABLE_BYTES_PER_ROW`."""


def check_subject(subject: Subject) -> None:
    """Accept a subject whose id, label and groups are safe in a file, a log line and a message.

    Raises:
        GalleryError: Says what is wrong with which part; shows neither id nor label.
    """
    problem = _problem(subject.subject_id, MAX_ID_CHARS)
    if problem:
        raise GalleryError(f"the subject's id {problem}; use for example p-1042")
    if len(subject.label) > MAX_LABEL_CHARS or not subject.label.isprintable():
        raise GalleryError(
            f"the subject's label must be one printable line of at most {MAX_LABEL_CHARS} characters"
        )
    if len(subject.groups) > MAX_GROUPS or len(set(subject.groups)) != len(subject.groups):
        raise GalleryError(f"a subject has at most {MAX_GROUPS} groups, each of them once")
    for group in subject.groups:
        problem = _problem(group, MAX_GROUP_CHARS)
        if problem:
            raise GalleryError(f"the name of a subject's group {problem}; use for example staff")
    for what, text, most in (
        ("consent reference", subject.consent, MAX_CONSENT_CHARS),
        ("notes", subject.notes, MAX_NOTES_CHARS),
    ):
        if len(text) > most or not text.isprintable():
            raise GalleryError(
                f"the subject's {what} must be one printable line of at most {most} characters"
            )
    if (problem := subject.access.problem()) is not None:
        raise GalleryError(f"the subject's access: {problem}")


def _problem(name: str, max_chars: int) -> str | None:
    if not name:
        return "is empty"
    if len(name) > max_chars:
        return f"has {len(name)} characters, at most {max_chars} are allowed"
    if not name.isprintable():
        return "holds a character that cannot be printed"
    if "/" in name or "\\" in name or ".." in name:
        return "looks like a path: '/', '\\' and '..' are not allowed"
    if name != name.strip():
        return "begins or ends with a space"
    return None
