"""Names and answers from elsewhere neither drive a terminal nor compute in a spreadsheet."""

import pytest

from edge.core.text import cell, printable


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
