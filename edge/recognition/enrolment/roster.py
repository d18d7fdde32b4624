"""Who is to be enrolled, as operators write it: a folder of photos, a CSV file, dates and windows in words.

Reads lists and no photo; enrols nobody (`bulk`).
"""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

from edge.core.access import Access, SubjectState, Window, zone
from edge.core.errors import EnrollmentError, MediaError
from edge.core.ids import composed
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

NO_PHOTOS = frozenset(
    {".txt", ".md", ".csv", ".json", ".xlsx", ".xls", ".ods", ".log", ".ini", ".db", ".html"}
)
"""Lists and notes, and what systems leave in a folder of photos; all else in it is somebody's photo."""

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(microsecond=0, tzinfo=UTC)
"""First and last moment of the calendar; a date beyond, as the end of 9999-12-31 is, counts as that one."""

SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""A first line of a CSV file by which spreadsheets are told what separates its cells."""

SAVE_AS = 'in a spreadsheet save it as "CSV UTF-8"'


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

    Dates are days in the subject's time zone or that of the door; `valid_until` is the last good day. A
    new id, label and groups are in Unicode's form NFC.

    Raises:
        EnrollmentError: A date, a window or a time zone that is none.
    """
    subject_id = known.subject_id if known else composed(subject_id)
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
        label=base.label if said.label is None else composed(said.label) or subject_id,
        groups=base.groups
        if said.groups is None
        else tuple(composed(group) for group in said.groups if group),
        consent=base.consent if said.consent is None else said.consent,
        notes=base.notes if said.notes is None else said.notes,
        access=Access(said.state or access.state, not_before, not_after, windows, name),
    )


def from_folder(folder: Path) -> list[Entry]:
    """Return one entry per photo (the file's name is the subject's id) and per folder of photos, by name.

    Nobody is left out: a file of any kind is taken for a photo, except `NO_PHOTOS` and hidden ones, and a
    folder without any is an entry without photos.

    Raises:
        MediaError: It cannot be read, or holds nobody.
    """
    try:
        entries = [
            Entry(
                describe(path.name if path.is_dir() else path.stem, None, Details()),
                _photos_in(path) if path.is_dir() else (path,),
            )
            for path in _inside(folder)
        ]
    except OSError as error:
        raise MediaError(f"{error.filename}: cannot be read: {error.strerror}") from None
    if not entries:
        raise MediaError(f"{folder}: neither photos nor folders of them")
    _refuse_twice(entries, folder)
    return entries


def from_csv(path: Path, door_zone: str = "UTC") -> list[Entry]:
    """Return the entries of a CSV file; rows of one subject add photos. Photos are relative to the file.

    Raises:
        MediaError: It cannot be read or is no CSV with the columns `subject` and `photo`.
        EnrollmentError: A row says something that is not possible; says which.
    """
    found: dict[str, Entry] = {}
    for number, row in csv_rows(path, ("subject", "photo"), COLUMNS):
        subject_id, photo = composed(row.get("subject", "")), row.get("photo", "")
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
        photos = (*(before.photos if before else ()), _on_disk(path.parent / photo))
        if len(photos) > MAX_PHOTOS_EACH:
            raise EnrollmentError(f"{path}, line {number}: more than {MAX_PHOTOS_EACH} photos of one subject")
        found[subject_id] = Entry(subject, photos)
    if not found:
        raise MediaError(f"{path}: no rows; a line for each photo, under the columns {', '.join(COLUMNS)}")
    return list(found.values())


def csv_rows(
    path: Path, needed: Sequence[str], known: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of the line and the cells by column of each row of a CSV file from a spreadsheet.

    The first line names the columns, the `needed` among them; others only where they are `known` (None: any).
    Every column is in every row; where a line ends early, the cells that are left out are empty.

    Raises:
        MediaError: It cannot be read, or is no such CSV file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ROSTER_BYTES + 1)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_ROSTER_BYTES:
        raise MediaError(f"{path}: larger than {MAX_ROSTER_BYTES >> 20} MiB; split it")
    text = _decoded(data, path)
    said = SEPARATOR.match(text)
    first = next(StringIO(text), "")
    delimiter = said[1] if said else max(",;\t", key=first.count)  # a comma where there is none of them
    lines = StringIO(text, newline="")
    if said:
        next(lines)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        names = [name.strip().lower() for name in next(reader, [])]
        while names and not names[-1]:
            names.pop()
        unknown = [] if known is None else sorted(set(names) - set(known))
        if unknown or not set(needed) <= set(names):
            among = "" if known is None else f" among {', '.join(known)}"
            verb = "are" if len(needed) > 1 else "is"
            raise MediaError(
                f"{path}: the first line must name columns{among}; {' and '.join(needed)} {verb} "
                f"needed{', ' + unknown[0][:32] + ' is not known' if unknown else ''}"
            )
        for row in reader:
            cells = [value.strip() for value in row]
            number = reader.line_num + bool(said)
            if any(cells[len(names) :]):
                raise MediaError(f"{path}, line {number}: more fields than columns")
            if any(cells):
                cells += [""] * (len(names) - len(cells))
                yield number, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise MediaError(f"{path}: not a CSV file: {error}; {SAVE_AS}") from None


def _decoded(data: bytes, path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 where it says so: the two that spreadsheets write."""
    wide = data.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise MediaError(f"{path}: not a CSV file in UTF-8, see line {line}; {SAVE_AS}") from None
    if "\0" in text.partition("\n")[0]:  # UTF-16 that does not say so; in a later row it is that row's fault
        raise MediaError(f"{path}: not a CSV file in UTF-8; {SAVE_AS}")
    return text


def _on_disk(path: Path) -> Path:
    """Return a photo's path as the disk spells it, which may be in another form of Unicode than a list."""
    if not path.exists() and path.parent.is_dir():
        wanted = composed(path.name)
        return next((each for each in path.parent.iterdir() if composed(each.name) == wanted), path)
    return path


def _moment(text: str, place: ZoneInfo, days: int) -> datetime | None:
    """Return the start of a day, `days` later, or a moment with its zone, in UTC; None for nothing."""
    if not text:
        return None
    try:
        if len(text) == len("2026-12-31"):
            moment = datetime.combine(date.fromisoformat(text), time(), place)
        else:
            moment, days = datetime.fromisoformat(text), 0
        if moment.tzinfo is None:
            raise ValueError
    except ValueError:
        raise ValueError("a date is written like 2026-12-31 or 2026-12-31T18:00+01:00") from None
    try:
        return min((moment + timedelta(days=days)).astimezone(UTC), LAST)
    except OverflowError:
        return LAST if moment.year > 1 else FIRST


def _parts(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in text.split(";") if part.strip()) if text else None


def _inside(folder: Path) -> list[Path]:
    """Return what a folder holds besides what is hidden and what is certainly no photo, by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() not in NO_PHOTOS)
    )


def _photos_in(folder: Path) -> tuple[Path, ...]:
    photos = _inside(folder)
    if len(photos) > MAX_PHOTOS_EACH:
        raise MediaError(
            f"{folder}: {len(photos)} photos of one subject, at most {MAX_PHOTOS_EACH} are possible"
        )
    return tuple(photos)


def _refuse_twice(entries: Iterable[Entry], folder: Path) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.subject.subject_id in seen:
            raise MediaError(
                f"{folder}: {entry.subject.subject_id} has the same name as another photo or folder; a "
                "subject with several photos has a folder of its own"
            )
        seen.add(entry.subject.subject_id)
