"""What matters is noted in lines, of which none takes another with it."""

import json
import stat
from pathlib import Path

import pytest

from edge.core.errors import FileError
from edge.core.files import MAX_BYTES, Audit


def lines(path: Path) -> list[int]:
    """Return the numbers that can be read."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line)["n"])
        except ValueError:
            continue
    return found


@pytest.mark.parametrize(
    "torn",
    [
        pytest.param("", id="whole"),
        pytest.param("{", id="one character"),
        pytest.param('{"n": 7, "verb": "rev', id="half a line"),
        pytest.param('{"n": 7}x', id="all but its end"),
    ],
)
def test_a_line_that_a_power_cut_tore_takes_no_other_with_it(tmp_path: Path, torn: str):
    path = tmp_path / "audit.jsonl"
    audit = Audit(path)
    audit.note({"n": 1})
    with path.open("a") as file:
        file.write(torn)
    audit.note({"n": 2})
    audit.note({"n": 3})
    assert lines(path) == [1, 2, 3]
    assert path.read_text().count("\n\n") == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_long_makes_room(tmp_path: Path):
    path = tmp_path / "commands" / "audit.jsonl"
    audit = Audit(path)
    audit.note({"n": 1, "x": "x" * MAX_BYTES})
    audit.note({"n": 2})
    assert (lines(path), lines(path.with_suffix(".old.jsonl"))) == ([2], [1])


def test_a_link_in_its_place_is_not_followed(tmp_path: Path):
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileError, match="cannot be written"):
        Audit(tmp_path / "audit.jsonl").note({"n": 1})
    assert not (tmp_path / "elsewhere").exists()
