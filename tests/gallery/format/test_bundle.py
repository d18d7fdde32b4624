import hashlib
import json
import struct
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.access import Access, SubjectState, Window
from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.core.types import Quality, Refusal, Subject, Template
from edge.gallery.format import bundle
from edge.gallery.format.bundle import HEADER, MAX_TABLE_BYTES_PER_ROW, decode, encode
from edge.gallery.gallery import Gallery
from tests.support.gallery_samples import MODEL, assert_equal, gallery_of, unit_rows

HONEST = encode(replace(gallery_of([1, 2]), version=42))
_, FORMAT, DIM, VERSION, ROWS, TABLE_BYTES = HEADER.unpack_from(HONEST)
TABLE = json.loads(HONEST[HEADER.size : HEADER.size + TABLE_BYTES])
MATRIX = np.frombuffer(HONEST, "<f4", ROWS * DIM, HEADER.size + TABLE_BYTES).reshape(ROWS, DIM)


def seal(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def forge(table: object = TABLE, matrix: np.ndarray = MATRIX, **header: int) -> bytes:
    """Return a bundle with a right checksum whose content an attacker chose."""
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    text += b" " * (-(HEADER.size + len(text)) % 64)
    rows, dim = matrix.shape
    said = {"format": FORMAT, "dim": dim, "version": VERSION, "rows": rows, "table_bytes": len(text)} | header
    return seal(HEADER.pack(b"EDGEGAL\0", *said.values()) + text + matrix.tobytes())


def with_subject(**change: object) -> dict[str, object]:
    return TABLE | {"subjects": [TABLE["subjects"][0] | change, *TABLE["subjects"][1:]]}


def with_template(at: int, value: object) -> dict[str, object]:
    row = list(TABLE["subjects"][0]["templates"][0])
    row[at] = value
    return with_subject(templates=[row])


def with_row(row: np.ndarray) -> np.ndarray:
    return np.concatenate([row[None].astype(np.float32), MATRIX[1:]])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_what_is_forged_without_a_change_is_read():
    assert_equal(decode(forge()), decode(HONEST))


def test_a_gallery_comes_back_as_it_was():
    gallery = replace(gallery_of([1, 5, 3]), version=7)
    again = decode(encode(gallery))
    assert_equal(again, gallery)
    assert encode(again) == encode(gallery)


EVERYTHING = Access(
    SubjectState.SUSPENDED,
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2027, 1, 1, tzinfo=UTC),
    (Window.parse("mon-fri 07:00-18:00"), Window.parse("sat 22:00-06:00")),
    "Europe/Berlin",
)


def test_what_is_known_of_a_subject_beyond_its_name_comes_back():
    gallery = gallery_of([1, 1])
    first, second = gallery.subjects
    known = replace(first, access=EVERYTHING, consent="HR-2026/17", notes="night shift")
    assert decode(encode(replace(gallery, subjects=(known, second)))).subjects == (known, second)


def test_the_end_of_a_gallerys_trust_comes_back():
    at = datetime(2026, 12, 24, 12, tzinfo=UTC)
    gallery = replace(gallery_of([1]), not_after=at)
    assert decode(encode(gallery)).not_after == at
    assert decode(encode(gallery.without_subject("p-0"))).not_after == at, "a change does not renew it"
    with pytest.raises(GalleryError, match="no time zone"):
        replace(gallery, not_after=at.replace(tzinfo=None))


def test_a_bundle_of_the_format_before_is_still_read():
    assert_equal(decode(forge(format=2)), decode(HONEST))


def test_an_empty_gallery_comes_back_too():
    for dim in (0, 128):
        assert_equal(decode(encode(Gallery.empty(MODEL, 3, dim))), Gallery.empty(MODEL, 3, dim))


def test_the_rows_are_used_where_they_lie():
    data = encode(gallery_of([2, 2]))
    matrix = decode(data).matrix
    assert not matrix.flags.owndata
    assert matrix.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        matrix[0, 0] = 1


def test_rows_of_lifted_faces_come_back_and_others_are_written_as_before():
    plain = Quality(80.0, 0.8, -3.0, 0.7, 0.9, 0.5)
    lifted = replace(plain, lifted=7.5)
    galleries = []
    for quality in (plain, lifted):
        template = Template(unit_rows(1)[0], MODEL, quality, "photo", datetime(2026, 1, 1, tzinfo=UTC))
        gallery = Gallery.empty(MODEL).with_subject(Subject("p-1", "One"), [template])
        assert_equal(decode(encode(gallery)), gallery)
        galleries.append(encode(gallery))
    assert b"80.0,0.8,-3.0,0.7,0.9,0.5,null,1]" in galleries[0]
    assert b"80.0,0.8,-3.0,0.7,0.9,0.5,7.5,null,1]" in galleries[1]


def test_recognisability_comes_back_and_makes_a_gallery_one_of_the_new_format():
    plain = Quality(80.0, 0.8, -3.0, 0.7, 0.9, 0.5)
    said = {}
    for quality in (plain, replace(plain, recognisability=0.97)):
        template = Template(unit_rows(1)[0], MODEL, quality, "photo", datetime(2026, 1, 1, tzinfo=UTC))
        gallery = Gallery.empty(MODEL).with_subject(Subject("p-1", "One"), [template])
        data = encode(gallery)
        assert_equal(decode(data), gallery)
        said[quality.recognisability] = HEADER.unpack_from(data)[1], data
    assert said[None][0] == 3, "earlier releases read what has none"
    assert said[0.97][0] == 4
    assert b"80.0,0.8,-3.0,0.7,0.9,0.5,1.0,0.97,null,1]" in said[0.97][1]


def test_the_largest_honest_subject_fits_its_table():
    wide = "\U00020000"
    subject = Subject(wide * 64, '"' * 64 + wide * 64, tuple(wide * 31 + chr(0x4E00 + i) for i in range(16)))
    quality = Quality(*[-1.2345678901234567e-300] * 6, Refusal.EXPOSURE, -1.2345678901234567e-300)
    rows = unit_rows(5)
    for count in (1, 5):
        templates = [
            Template(row, MODEL, quality, wide * 64, datetime(2026, 1, 1, 1, 1, 1, 111111, tzinfo=UTC))
            for row in rows[:count]
        ]
        gallery = Gallery.empty(MODEL).with_subject(subject, templates)
        data = encode(gallery)
        assert HEADER.unpack_from(data)[5] <= MAX_TABLE_BYTES_PER_ROW * (count + 1)
        assert_equal(decode(data), gallery)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "0 bytes are too few", id="empty file"),
        pytest.param(HONEST[:40], "40 bytes are too few", id="header alone"),
        pytest.param(HONEST[:-1], "checksum", id="last byte missing"),
        pytest.param(HONEST[: len(HONEST) // 2], "checksum", id="half"),
        pytest.param(HONEST + b"\0", "checksum", id="one byte more"),
        pytest.param(HONEST + HONEST, "checksum", id="twice in a row"),
        pytest.param(bytes(len(HONEST)), "not a gallery", id="zeros"),
        pytest.param(b"PK\3\4" + HONEST[4:], "not a gallery", id="a zip archive"),
        pytest.param(b"\x93NUMPY" + HONEST[6:], "not a gallery", id="an npy file"),
        pytest.param(flip(HONEST, 9), "checksum", id="bit flip in the format"),
        pytest.param(flip(HONEST, 17), "checksum", id="bit flip in the version"),
        pytest.param(flip(HONEST, 60), "checksum", id="bit flip in the table"),
        pytest.param(flip(HONEST, len(HONEST) - 100), "checksum", id="bit flip in a row"),
        pytest.param(flip(HONEST, len(HONEST) - 1), "checksum", id="bit flip in the checksum"),
        pytest.param(seal(HONEST[:-32] + b"junk"), "the header declares", id="sealed trailing garbage"),
        pytest.param(forge(rows=10**9), "1000000000 rows", id="1e9 rows"),
        pytest.param(forge(rows=2**32 - 1, dim=2**32 - 1), "4294967295 rows", id="numbers that overflow"),
        pytest.param(forge(rows=10**6), "the header declares", id="1e6 rows that are not there"),
        pytest.param(forge(rows=2), "the header declares", id="a row hidden"),
        pytest.param(forge(dim=2**20), "rows of 1048576", id="huge dimension"),
        pytest.param(forge(dim=64), "the header declares", id="half the dimension"),
        pytest.param(forge(rows=ROWS * 2, dim=DIM // 2), "do not agree", id="rows cut in two"),
        pytest.param(forge(dim=0, rows=0), "the header declares", id="no rows declared"),
        pytest.param(forge(table_bytes=2**32 - 32), "subject table of", id="4 GiB table"),
        pytest.param(forge(table_bytes=33), "subject table of 33", id="table that shifts the rows"),
        pytest.param(forge(version=2**63), "not a version number", id="version beyond all numbers"),
        pytest.param(forge(b"{}"), "model_id", id="table without keys"),
        pytest.param(forge(b"nonsense"), "subject table", id="no JSON"),
        pytest.param(forge(b"\xff\xfe"), "subject table", id="no UTF-8"),
        pytest.param(forge(b"[" * 9000), "subject table", id="deep JSON"),
        pytest.param(forge(b'{"a":' * 2000), "subject table", id="deep JSON objects"),
        pytest.param(forge(TABLE | {"more": 1}), "more", id="unknown key"),
        pytest.param(forge(TABLE | {"a\nb": 1}), "subject table", id="unknown key with a newline"),
        pytest.param(forge(TABLE | {"model_id": ""}), "model id", id="no model id"),
        pytest.param(forge(TABLE | {"not_after": "2026-08-01T07:31:22"}), "timezone", id="end without zone"),
        pytest.param(forge(TABLE | {"not_after": 7}), "not_after", id="end that is a number"),
        pytest.param(forge(TABLE | {"model_id": "a\nb"}), "model id", id="model id with a newline"),
        pytest.param(
            forge(TABLE | {"subjects": TABLE["subjects"][:1]}), "do not agree", id="subject cut out"
        ),
        pytest.param(forge(TABLE | {"subjects": [TABLE["subjects"][1]] * 2}), "do not agree", id="5 for 3"),
        pytest.param(forge(with_subject(id="p-1")), "twice", id="duplicate id"),
        pytest.param(forge(with_subject(id="")), "id is empty", id="empty id"),
        pytest.param(forge(with_subject(id="a\nb")), "cannot be printed", id="newline in an id"),
        pytest.param(forge(with_subject(id="a\0b")), "cannot be printed", id="NUL in an id"),
        pytest.param(forge(with_subject(id="../../etc/passwd")), "looks like a path", id="path as id"),
        pytest.param(forge(with_subject(id="a" * 65)), "65 characters", id="long id"),
        pytest.param(forge(with_subject(id=7)), "valid string", id="number as id"),
        pytest.param(forge(with_subject(id=None)), "valid string", id="null as id"),
        pytest.param(forge(with_subject(label="a\x1b[2J")), "label", id="terminal escape in a label"),
        pytest.param(forge(with_subject(groups="staff")), "groups", id="groups that are text"),
        pytest.param(forge(with_subject(access={"state": "admin"})), "access.state", id="state that is none"),
        pytest.param(forge(with_subject(access={"windows": ["always"]})), "window", id="window that is none"),
        pytest.param(
            forge(with_subject(access={"windows": ["mon 07:00-08:00"] * 9})), "at most 8", id="windows"
        ),
        pytest.param(forge(with_subject(access={"time_zone": "../x"})), "time zone", id="zone like a path"),
        pytest.param(
            forge(with_subject(access={"not_after": "2026-08-01T07:31:22"})), "timezone", id="naive end"
        ),
        pytest.param(forge(with_subject(access={"doors": 1})), "doors", id="unknown access"),
        pytest.param(forge(with_subject(consent="x" * 65)), "consent", id="long consent"),
        pytest.param(forge(with_subject(notes="a\nb")), "notes", id="notes of two lines"),
        pytest.param(forge(with_subject(templates=[])), "do not agree", id="subject without templates"),
        pytest.param(forge(with_template(0, "")), "source", id="no source"),
        pytest.param(forge(with_template(1, "2026-08-01T07:31:22")), "timezone", id="time without zone"),
        pytest.param(forge(with_template(1, "2026-08-01T07:31:22+02:00")), "UTC", id="time of another zone"),
        pytest.param(forge(with_template(1, "0001-01-01T00:00:00+14:00")), "UTC", id="time before year 1"),
        pytest.param(forge(with_template(1, "yesterday")), "datetime", id="no time"),
        pytest.param(forge(with_template(2, float("nan"))), "finite", id="NaN quality"),
        pytest.param(forge(with_template(2, 10**400)), "subject table", id="number beyond float"),
        pytest.param(forge(with_template(2, "112")), "valid number", id="number as text"),
        pytest.param(forge(with_template(8, "beard")), "refused|'size'", id="unknown refusal"),
        pytest.param(forge(matrix=with_row(MATRIX[0] * np.nan)), "norm nan", id="NaN row"),
        pytest.param(forge(matrix=with_row(np.full(DIM, np.inf))), "norm inf", id="infinite row"),
        pytest.param(forge(matrix=with_row(MATRIX[0] * 50)), "norm 50", id="norm 50"),
        pytest.param(forge(matrix=with_row(MATRIX[0] * 0)), "norm 0", id="norm 0"),
    ],
)
def test_a_bundle_that_is_not_honest_is_refused(data: bytes, says: str):
    tracemalloc.start()
    try:
        with pytest.raises(GalleryIntegrityError, match=says) as caught:
            decode(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith("gallery: ")
    assert message.isprintable()
    assert len(message) < 300
    assert peak_bytes < 2_000_000


def test_a_bundle_of_a_newer_format_is_no_damage():
    with pytest.raises(
        GalleryError, match="format 5 is unknown, 4 is the newest read here; update"
    ) as caught:
        decode(forge(format=5))
    assert not isinstance(caught.value, GalleryIntegrityError)


def test_a_bundle_beyond_the_limit_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch):
    gallery = gallery_of([1, 2])
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 1000)
    with pytest.raises(GalleryError, match="larger than 1000 bytes"):
        encode(gallery)
    with pytest.raises(GalleryIntegrityError, match="more than the 1000 allowed"):
        decode(HONEST)


def test_every_single_bit_flip_is_found():
    small = encode(gallery_of([1], dim=4))
    for bit in range(8 * len(small)):
        data = bytearray(small)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(GalleryIntegrityError):
            decode(bytes(data))


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=400), st.tuples(*[st.integers(0, 2**32 - 1)] * 4), st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_give_one_kind_of_error(body: bytes, numbers: tuple[int, ...], version: int):
    form, dim, rows, table = numbers
    header = struct.pack("<8sIIQII", b"EDGEGAL\0", form % 3, dim % 8, version, rows % 8, table % 128)
    for data in (body, seal(body), seal(header + body)):
        with pytest.raises(GalleryError, match=r"^gallery: "):
            decode(data)


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=32).filter(
    lambda name: name.isprintable() and "/" not in name and "\\" not in name and ".." not in name
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
qualities = st.builds(Quality, *[numbers] * 6, refused=st.none() | st.sampled_from(list(Refusal)))
subjects = st.builds(Subject, names, names, st.lists(names, max_size=4, unique=True).map(tuple))


@st.composite
def galleries(draw: st.DrawFn) -> Gallery:
    known = draw(st.lists(subjects, max_size=6, unique_by=lambda subject: subject.subject_id))
    counts = [draw(st.integers(1, 5)) for _ in known]
    rows = iter(unit_rows(sum(counts), draw(st.sampled_from([2, 17, 128])), draw(st.integers(0, 999))))
    model_id = draw(names)
    times = st.datetimes(timezones=st.just(UTC))
    entries = [
        (
            subject,
            [Template(next(rows), model_id, draw(qualities), draw(names), draw(times)) for _ in range(count)],
        )
        for subject, count in zip(known, counts, strict=True)
    ]
    return replace(Gallery.empty(model_id).with_subjects(entries), version=draw(st.integers(0, 2**63 - 1)))


@settings(max_examples=100, deadline=None, database=None)
@given(galleries())
def test_any_gallery_comes_back_as_it_was(gallery: Gallery):
    assert_equal(decode(encode(gallery)), gallery)
