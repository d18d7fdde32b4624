"""Lists of who is to be enrolled, as operators write them: folders, CSV files, dates and windows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.core.access import Access, SubjectState, Window
from edge.core.errors import EnrollmentError, MediaError
from edge.core.types import Subject
from edge.lab.photos.protocol import subjects
from edge.recognition.enrolment.roster import (
    LAST,
    MAX_PHOTOS_EACH,
    Details,
    describe,
    from_csv,
    from_folder,
)

KNOWN = Subject(
    "p-1",
    "Alice",
    ("staff",),
    Access(not_after=datetime(2027, 1, 1, tzinfo=UTC), windows=(Window.parse("mon 07:00-08:00"),)),
    "HR-7",
)


def test_what_is_not_said_stays_as_it_was():
    assert describe("p-1", KNOWN, Details()) == KNOWN
    assert describe("p-2", None, Details()) == Subject("p-2", "p-2")


def test_what_is_said_empty_is_taken_away():
    said = Details("", ("",), "", "", ("",), "", "", "")
    assert describe("p-1", KNOWN, said) == Subject("p-1", "p-1")


def test_a_state_is_changed_alone():
    changed = describe("p-1", KNOWN, Details(state=SubjectState.SUSPENDED))
    assert changed.access.state == SubjectState.SUSPENDED
    assert changed.access.windows == KNOWN.access.windows


@pytest.mark.parametrize(
    ("said", "zone", "until"),
    [
        pytest.param("2026-12-31", "", datetime(2027, 1, 1, tzinfo=UTC), id="through the last day"),
        pytest.param(
            "2026-12-31", "Asia/Tokyo", datetime(2026, 12, 31, 15, tzinfo=UTC), id="of another zone"
        ),
        pytest.param("2026-12-31T18:00+01:00", "", datetime(2026, 12, 31, 17, tzinfo=UTC), id="to the hour"),
        pytest.param("2026-12-31T18:00Z", "Asia/Tokyo", datetime(2026, 12, 31, 18, tzinfo=UTC), id="in UTC"),
        pytest.param("9999-12-31", "", LAST, id="for ever"),
        pytest.param("9999-12-31", "America/New_York", LAST, id="for ever, west of Greenwich"),
        pytest.param("9999-12-31T23:59-05:00", "", LAST, id="for ever, to the minute"),
    ],
)
def test_the_last_good_day_is_a_good_day(said: str, zone: str, until: datetime):
    assert describe("p", None, Details(valid_until=said, time_zone=zone)).access.not_after == until


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param(Details(valid_until="31.12.2026"), "a date is written like", id="another notation"),
        pytest.param(
            Details(valid_until="2026-12-31T18:00"), "a date is written like", id="an hour without zone"
        ),
        pytest.param(Details(valid_until="10000-01-01"), "a date is written like", id="beyond the end"),
        pytest.param(Details(windows=("always",)), "a window is written like", id="no window"),
        pytest.param(Details(time_zone="Mars/Olympus"), "time zone", id="no zone"),
    ],
)
def test_what_is_no_date_window_or_zone_is_named(said: Details, why: str):
    with pytest.raises(EnrollmentError, match=f"'p-1': .*{why}"):
        describe("p-1", None, said)


def test_a_first_day_before_all_days_is_the_first_of_them():
    assert describe(
        "p", None, Details(valid_from="0001-01-01", time_zone="Asia/Tokyo")
    ).access.not_before == (datetime(1, 1, 1, tzinfo=UTC))


def test_a_new_id_label_and_groups_are_of_one_spelling():
    said = Details(label="Zoe\u0308", groups=("kita\u0308",))
    subject = describe("p-zoe\u0308", None, said)
    assert (subject.subject_id, subject.label, subject.groups) == ("p-zo\xeb", "Zo\xeb", ("kit\xe4",))
    known = Subject("p-zoe\u0308", "")
    assert describe("p-zo\xeb", known, said).subject_id == known.subject_id


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folder_holds_photos_and_folders_of_photos(tmp_path: Path):
    one, two, three = (photo(tmp_path / name) for name in ("p-2.JPG", "p-1/b.png", "p-1/a.jpeg"))
    for name in (".hidden.jpg", "notes.txt", "p-1/Thumbs.db"):
        photo(tmp_path / name)
    entries = from_folder(tmp_path)
    assert [(entry.subject.subject_id, entry.photos) for entry in entries] == [
        ("p-1", (three, two)),
        ("p-2", (one,)),
    ]


def test_nobody_in_a_folder_is_left_out_whatever_the_photo_is(tmp_path: Path):
    names = ("carol.heic", "dave.avif", "erin.jfif", "frank/1.HEIC", "hugo.cr2", "ida", "jo/2024/1.jpg")
    for name in names:
        photo(tmp_path / name)
    (tmp_path / "gina").mkdir()
    assert [
        (entry.subject.subject_id, [p.name for p in entry.photos]) for entry in from_folder(tmp_path)
    ] == [
        ("carol", ["carol.heic"]),
        ("dave", ["dave.avif"]),
        ("erin", ["erin.jfif"]),
        ("frank", ["1.HEIC"]),
        ("gina", []),
        ("hugo", ["hugo.cr2"]),
        ("ida", ["ida"]),
        ("jo", ["2024"]),
    ]


def test_names_of_a_folder_are_of_one_spelling(tmp_path: Path):
    photo(tmp_path / "zoe\u0308.jpg")
    (entry,) = from_folder(tmp_path)
    assert (entry.subject.subject_id, entry.photos) == ("zo\xeb", (tmp_path / "zoe\u0308.jpg",))
    photo(tmp_path / "zo\xeb.png")
    with pytest.raises(MediaError, match="the same name"):
        from_folder(tmp_path)


def test_two_photos_of_one_name_are_not_silently_one_subject(tmp_path: Path):
    photo(tmp_path / "p-1.jpg")
    photo(tmp_path / "p-1.png")
    with pytest.raises(MediaError, match="the same name"):
        from_folder(tmp_path)


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_photos_is_an_error(tmp_path: Path, name: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match=r"neither photos|cannot be read"):
        from_folder(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    photo(tmp_path / "p-1" / "a.jpg")
    read = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "p-1":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    for look in (from_folder, subjects):
        with pytest.raises(MediaError, match=r"p-1: cannot be read: Permission denied"):
            look(tmp_path)


def test_photos_of_one_subject_beyond_the_bound_are_not_left_out_in_silence(tmp_path: Path):
    for number in range(MAX_PHOTOS_EACH + 1):
        photo(tmp_path / "p-1" / f"{number}.jpg")
    with pytest.raises(MediaError, match=rf"p-1: {MAX_PHOTOS_EACH + 1} photos of one subject, at most"):
        from_folder(tmp_path)


def roster(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "staff.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_of_one_subject_add_photos_and_say_more(tmp_path: Path):
    path = roster(
        tmp_path, "\ufeffSubject;Photo;Label;Groups\np-1;a.jpg;Alice;staff\np-1;b.jpg;;\np-2;c.jpg;;x\n"
    )
    entries = from_csv(path)
    assert [entry.photos for entry in entries] == [
        (tmp_path / "a.jpg", tmp_path / "b.jpg"),
        (tmp_path / "c.jpg",),
    ]
    assert [(e.subject.label, e.subject.groups) for e in entries] == [("Alice", ("staff",)), ("p-2", ("x",))]


def test_dates_of_a_csv_file_are_days_at_the_door(tmp_path: Path):
    path = roster(tmp_path, "subject,photo,valid_from\np-1,a.jpg,2026-07-01\n")
    assert from_csv(path, "Europe/Berlin")[0].subject.access.not_before == datetime(
        2026, 6, 30, 22, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "the first line must name columns", id="empty"),
        pytest.param("subject\np-1\n", "subject and photo are needed", id="one column"),
        pytest.param("subject,photo\n", "no rows", id="no rows"),
        pytest.param("name,photo\na,b\n", "name is not known", id="unknown column"),
        pytest.param("subject,label\na,b\n", "subject and photo are needed", id="no photo column"),
        pytest.param("subject,photo\na,\n", "line 2: a row needs", id="no photo"),
        pytest.param("subject,photo\na,b,c\n", "line 2: more fields", id="too many fields"),
        pytest.param(b"subject,photo\n\xff,b\n", "not a CSV file in UTF-8", id="not UTF-8"),
        pytest.param(
            "subject;photo;label\np-1;a.jpg;Zo\xeb\n".encode("cp1252"),
            'see line 2; .*save it as "CSV UTF-8"',
            id="an older code page",
        ),
        pytest.param("subject,photo\n".encode("utf-16-le"), 'save it as "CSV UTF-8"', id="UTF-16 unsaid"),
        pytest.param(b"PK\x03\x04\xff\xfe", 'save it as "CSV UTF-8"', id="a workbook"),
        pytest.param('subject,photo\n"a,b\n', "not a CSV file", id="open quote"),
        pytest.param("subject,photo,valid_until\na,b,soon\n", "line 2: .*a date is written", id="no date"),
    ],
)
def test_what_is_no_list_is_named_with_its_line(tmp_path: Path, text: str | bytes, why: str):
    with pytest.raises((MediaError, EnrollmentError), match=why):
        from_csv(roster(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "subject;photo;label\r\np-1;a.jpg;Zo\xeb\r\n;;\r\n ; ;\r\n\r\n", id="empty rows at the end"
        ),
        pytest.param("subject;photo;label;;\r\np-1;a.jpg;Zo\xeb;;\r\n", id="empty columns"),
        pytest.param(
            "sep=;\r\nsubject;photo;label\r\np-1;a.jpg;Zo\xeb\r\n", id="a line that names the separator"
        ),
        pytest.param("SEP=|\nsubject|photo|label\np-1|a.jpg|Zo\xeb\n", id="another separator"),
        pytest.param("subject\tphoto\tlabel\r\np-1\ta.jpg\tZo\xeb\r\n".encode("utf-16"), id="UTF-16"),
        pytest.param(
            b"\xfe\xff" + "subject,photo,label\np-1,a.jpg,Zo\xeb\n".encode("utf-16-be"),
            id="UTF-16, big end first",
        ),
        pytest.param("subject,photo,label\np-1,a.jpg,Zoe\u0308\n", id="accents apart"),
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str | bytes):
    (entry,) = from_csv(roster(tmp_path, text))
    assert (entry.subject.subject_id, entry.subject.label) == ("p-1", "Zo\xeb")
    assert entry.photos == (tmp_path / "a.jpg",)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path):
    path = roster(tmp_path, "sep=;\nsubject;photo\n;;\np-1;\n")
    with pytest.raises(EnrollmentError, match="line 4: a row needs"):
        from_csv(path)


def test_a_photo_is_found_however_the_disk_spells_its_accents(tmp_path: Path):
    there = photo(tmp_path / "zoe\u0308.jpg")
    (entry,) = from_csv(roster(tmp_path, "subject,photo\np-1,zo\xeb.jpg\n"))
    assert entry.photos == (there,)


def test_a_list_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(MediaError, match="cannot be read"):
        from_csv(tmp_path / "none.csv")
