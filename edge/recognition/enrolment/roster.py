"""Who is to be enrolled, as operators write it: a folder of photos, a CSV file, dates and windows in words.

Reads lists and no photo; enrols nobody (`bulk`).
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

from edge.camera.photo import SUFFIXES
from edge.core.access import Access, SubjectState, Window, zone
from edge.core.errors import EnrollmentError, MediaError
from edge.core.types import Subject

COLUMNS = (
    "subject",
    "photo",
    "label",
    "groups",
    "valid_from",
    "valid_until",
    "windows",
    "time_zone",
    "consent",
    "notes",
)
"""Of a CSV file; only the first two are needed. Groups and windows are separated by `;`."""

MAX_ROSTER_BYTES = 64 * 1024 * 1024
"""Some hundred thousand rows."""

MAX_PHOTOS_EACH = 1000
"""Photos of one subject; more is a folder of something else."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One subject and the photos to enrol it from."""

    subject: Subject
    photos: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Details:
    """What may be said of a subject besides its id, as text; None: leave it as it is, empty: take it away."""

    label: str | None = None
    groups: tuple[str, ...] | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    windows: tuple[str, ...] | None = None
    time_zone: str | None = None
    consent: str | None = None
    notes: str | None = None
    state: SubjectState | None = None


def describe(subject_id: str, known: Subject | None, said: Details, door_zone: str = "UTC") -> Subject:
    """Return a subject as known, with what is said of it; a new one is labelled with its id.

    Dates are days in the subject's time zone or that of the door; `valid_until` is the last good day.

    Raises:
        EnrollmentError: A date, a window or a time zone that is none.
    """
    base = known or Subject(subject_id, subject_id)
    access = base.access
    try:
        name = access.time_zone if said.time_zone is None else said.time_zone
        place = zone(name or door_zone)
        windows = access.windows
        if said.windows is not None:
            windows = tuple(Window.parse(text) for text in said.windows if text)
        not_before, not_after = access.not_before, access.not_after
        if said.valid_from is not None:
            not_before = _moment(said.valid_from, place, 0)
        if said.valid_until is not None:
            not_after = _moment(said.valid_until, place, 1)
    except ValueError as error:
        raise EnrollmentError(f"subject {subject_id!r}: {error}") from None
    return replace(
        base,
        label=base.label if said.label is None else said.label or subject_id,
        groups=base.groups if said.groups is None else tuple(group for group in said.groups if group),
        consent=base.consent if said.consent is None else said.consent,
        notes=base.notes if said.notes is None else said.notes,
        access=Access(said.state or access.state, not_before, not_after, windows, name),
    )


def from_folder(folder: Path) -> list[Entry]:
    """Return one entry per photo (the file's name is the subject's id) and per folder of photos, by name.

    Raises:
        MediaError: It cannot be read, or holds no photo.
    """
    try:
        inside = sorted(folder.iterdir())
        entries = [
            Entry(_subject(path.name if path.is_dir() else path.stem), _photos_in(path))
            for path in inside
            if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in SUFFIXES)
        ]
    except OSError as error:
        raise MediaError(f"{error.filename}: cannot be read: {error.strerror}") from None
    entries = [entry for entry in entries if entry.photos]
    if not entries:
        raise MediaError(f"{folder}: neither photos ({', '.join(sorted(SUFFIXES))}) nor folders of them")
    _refuse_twice(entries, folder)
    return entries


def from_csv(path: Path, door_zone: str = "UTC") -> list[Entry]:
    """Return the entries of a CSV file; rows of one subject add photos. Photos are relative to the file.

    Raises:
        MediaError: It cannot be read or is no CSV with the columns `subject` and `photo`.
        EnrollmentError: A row says something that is not possible; says which.
    """
    found: dict[str, Entry] = {}
    for number, row in _rows(path):
        subject_id, photo = row.get("subject", ""), row.get("photo", "")
        if not subject_id or not photo:
            raise EnrollmentError(f"{path}, line {number}: a row needs a subject and a photo")
        before = found.get(subject_id)
        said = Details(
            label=row.get("label") or None,
            groups=_parts(row.get("groups")),
            valid_from=row.get("valid_from") or None,
            valid_until=row.get("valid_until") or None,
            windows=_parts(row.get("windows")),
            time_zone=row.get("time_zone") or None,
            consent=row.get("consent") or None,
            notes=row.get("notes") or None,
        )
        try:
            subject = describe(subject_id, before.subject if before else None, said, door_zone)
        except EnrollmentError as error:
            raise EnrollmentError(f"{path}, line {number}: {error}") from None
        photos = (*(before.photos if before else ()), path.parent / photo)
        if len(photos) > MAX_PHOTOS_EACH:
            raise EnrollmentError(f"{path}, line {number}: more than {MAX_PHOTOS_EACH} photos of one subject")
        found[subject_id] = Entry(subject, photos)
    if not found:
        raise MediaError(f"{path}: no rows; a line for each photo, under the columns {', '.join(COLUMNS)}")
    return list(found.values())


def _rows(path: Path) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROSTER_BYTES + 1)
        if len(data) > MAX_ROSTER_BYTES:
            raise MediaError(f"{path}: larger than {MAX_ROSTER_BYTES >> 20} MiB; split it")
        text = data.decode("utf-8-sig")  # spreadsheets write a byte order mark
        first = next(StringIO(text), "")
        delimiter = max(",;\t", key=first.count)  # a comma where there is none of them
        reader = csv.DictReader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        unknown = sorted(set(names) - set(COLUMNS))
        if unknown or not {"subject", "photo"} <= set(names):
            raise MediaError(
                f"{path}: the first line must name columns among {', '.join(COLUMNS)}; subject and photo are "
                f"needed{', ' + unknown[0][:32] + ' is not known' if unknown else ''}"
            )
        reader.fieldnames = names
        for row in reader:
            if None in row:
                raise MediaError(f"{path}, line {reader.line_num}: more fields than columns")
            yield reader.line_num, {key: (value or "").strip() for key, value in row.items()}
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise MediaError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _moment(text: str, place: ZoneInfo, days: int) -> datetime | None:
    """Return the start of a day, `days` later, or a moment with its zone, in UTC; None for nothing."""
    if not text:
        return None
    try:
        if len(text) == len("2026-12-31"):
            day = date.fromisoformat(text) + timedelta(days=days)
            return datetime.combine(day, time(), place).astimezone(UTC)
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("a date is written like 2026-12-31 or 2026-12-31T18:00+01:00") from None


def _parts(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(";") if part.strip()) if text else None


def _photos_in(path: Path) -> tuple[Path, ...]:
    if not path.is_dir():
        return (path,)
    photos = sorted(photo for photo in path.iterdir() if photo.suffix.lower() in SUFFIXES)
    if len(photos) > MAX_PHOTOS_EACH:
        raise MediaError(
            f"{path}: {len(photos)} photos of one subject, at most {MAX_PHOTOS_EACH} are possible"
        )
    return tuple(photos)


def _subject(subject_id: str) -> Subject:
    return Subject(subject_id, subject_id)


def _refuse_twice(entries: Iterable[Entry], folder: Path) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.subject.subject_id in seen:
            raise MediaError(
                f"{folder}: {entry.photos[0].name} has the same name as another photo or folder; a subject "
                "with several photos has a folder of its own"
            )
        seen.add(entry.subject.subject_id)
