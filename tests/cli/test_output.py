"""Tables on terminals of any width, and in pipes: ids can be copied from them."""

import pytest

from edge.cli.output import Listing


@pytest.fixture(params=["20", "80"])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", request.param)
    monkeypatch.setenv("LINES", "25")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    return int(request.param)


def listing() -> Listing:
    table = Listing("id", "visits", "label", copied=("id", "visits"), title="gallery")
    table.add_row("p-" + "8" * 30, "v-12bc62651234\nv-42bc62651235", "a long label of many words " * 5)
    return table


@pytest.mark.usefixtures("terminal")
def test_ids_are_never_cut(capsys: pytest.CaptureFixture[str]):
    listing().print()
    shown = capsys.readouterr().out
    assert all(each in shown for each in ("p-" + "8" * 30, "v-12bc62651234", "v-42bc62651235"))
    assert "…" not in shown
    assert shown.count("\n") > 6, "the label is folded"


def test_what_is_no_terminal_gets_a_line_per_row(capsys: pytest.CaptureFixture[str]):
    listing().print()
    assert any(
        "p-" + "8" * 30 in line and line.count("long label") == 5
        for line in capsys.readouterr().out.splitlines()
    )


@pytest.mark.parametrize("text", ["[/red]", "[bold]x", "[link=http://a]b", "\x1b[31mred"])
def test_a_cell_is_text_whatever_it_looks_like(text: str, capsys: pytest.CaptureFixture[str]):
    table = Listing("id", "label", title=text)
    table.add_row("p-1", text)
    table.print()
    shown = capsys.readouterr().out
    assert text.replace("\x1b", "\\x1b") in shown
    assert "\x1b" not in shown
