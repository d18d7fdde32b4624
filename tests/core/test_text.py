"""What is shown drives no terminal, computes in no spreadsheet and holds no credentials."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from edge.core.text import (
    cell,
    first_problem,
    key_problems,
    printable,
    problems,
    scrub,
    strict_object,
    without_credentials,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("p-1 Zoë 张", "p-1 Zoë 张", id="a name"),
        pytest.param("a\nb\tc", "a\\nb\\tc", id="lines"),
        pytest.param("\x1b[2J\x07", "\\x1b[2J\\x07", id="a terminal's commands"),
        pytest.param("a\u202egpj.exe", "a\\u202egpj.exe", id="from right to left"),
        pytest.param("a\udcff", "a\\udcff", id="a file name that is no UTF-8"),
    ],
)
def test_what_cannot_be_printed_is_told_as_an_escape(text: str, shown: str):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_computes_nothing(text: str):
    assert cell(text) == f"'{text}"


def test_what_is_only_text_stays_as_it_is():
    assert cell("p-1=2") == "p-1=2"


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        pytest.param("rtsp://user:secret@door/live", "rtsp://door/live", id="plain"),
        pytest.param("http://user:s%40@door:80/x?token=secret#secret", "http://door:80/x", id="query"),
        pytest.param("rtsp://user:p@secret@door/", "rtsp://door/", id="at in password"),
        pytest.param("rtsp://user:p#secret@door/x", "rtsp://***", id="hash in password"),
        pytest.param("rtsp://user:p/secret@door/x", "rtsp://***", id="slash in password"),
        pytest.param("rtsp://user:secret?x@door/x", "rtsp://***", id="question mark in password"),
        pytest.param("rtsp://user:p@s/secret@door/x", "rtsp://***", id="at and slash in password"),
        pytest.param("rtsp://user:12/secret@door/x", "rtsp://***", id="begins like a port"),
        pytest.param("rtsp:/user:secret@door/x", "rtsp://***", id="one slash"),
        pytest.param("http://[user:secret@door/x", "http://***", id="bracket"),
        pytest.param("http://door/x?user=a@b&password=secret", "http://***", id="at in query"),
        pytest.param("/dev/video0", "/dev/video0", id="device"),
        pytest.param("clips/a b.mp4", "clips/a b.mp4", id="clip"),
    ],
)
def test_a_source_is_shown_without_credentials(source: str, shown: str):
    assert without_credentials(source) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("rtsp://me:secret@host failed", "rtsp://host failed"),
        ("rtsp://me:p@secret@host/x: 401", "rtsp://host/x: 401"),
        ("rtsp://me:p/secret@host/x", "rtsp://host/x"),
        ("rtsp://me:p#secret@host/x", "rtsp://host/x"),
        ("open http://host/x?token=secret failed", "open http://host/x?*** failed"),
        ("12:30 all well with me@home", "12:30 all well with me@home"),
    ],
)
def test_a_text_is_shown_without_credentials(said: str, shown: str):
    assert scrub(said) == shown


class Door(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cameras: list[str]
    port: int = 1883

    @model_validator(mode="after")
    def _check(self) -> "Door":
        if self.port == 22:
            raise ValueError("Port 22 is taken")
        return self


def wrong(**values: object) -> ValidationError:
    with pytest.raises(ValidationError) as refused:
        Door.model_validate(values)
    return refused.value


@pytest.mark.parametrize(
    ("values", "first", "for_people"),
    [
        pytest.param(
            {"cameras": ["a", 2]},
            "cameras.1: Input should be a valid string",
            "cameras.1: input should be a valid string",
            id="place in a list",
        ),
        pytest.param({}, "cameras: Field required", "cameras: field required", id="missing"),
        pytest.param(
            {"cameras": ["a"], "prot": 1},
            "prot: Extra inputs are not permitted",
            "prot: unknown key; remove it or correct its spelling",
            id="misspelt",
        ),
        pytest.param(
            {"cameras": ["a"], "port": 22},
            "the door: Value error, Port 22 is taken",
            "the door: port 22 is taken",
            id="as a whole",
        ),
    ],
)
def test_what_is_wrong_with_a_document_is_told_with_its_place(
    values: dict[str, object], first: str, for_people: str
):
    error = wrong(**values)
    assert first_problem(error, "the door") == first
    assert [str(each) for each in key_problems(error, "the door")] == [for_people]


def test_all_that_is_wrong_is_told_and_no_value():
    found = problems(wrong(cameras=["secret-1", 7], port="secret-2"))
    assert [each.where for each in found] == ["cameras.1", "port"]
    assert "secret" not in str(found)


def test_a_key_that_others_wrote_is_cut_and_drives_no_terminal():
    said = first_problem(wrong(cameras=["a"], **{"x\n\x1b[2J" * 100: 1}))
    assert said.isprintable()
    assert said.endswith(": Extra inputs are not permitted")
    assert len(said) < 80 + 40


@pytest.mark.parametrize(
    "data",
    [b'{"a": "\\ud800"}', b'{"\\udfff": 1}', b'{"a": [{"b": "\\ude00\\ud83d"}]}', b'{"a": "\xed\xa0\x80"}'],
)
def test_half_a_character_is_no_strict_json(data: bytes):
    with pytest.raises(ValueError, match=r"half a character|no JSON"):
        strict_object(data)


def test_a_character_of_two_halves_is_one():
    assert strict_object(b'{"a": "\\ud83d\\ude00 \\u00e4"}') == {"a": "😀 ä"}
