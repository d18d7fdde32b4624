"""`python -m tests.cases`: it tells what is right from what is not, and says aloud what it skips."""

import subprocess
import sys
from pathlib import Path

from tests.cases import CASES
from tests.support.places import ROOT
from tests.support.streams import make_clip


def looked_at(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.cases", str(folder), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_inputs_that_are_not_there_are_skipped_aloud(tmp_path: Path):
    done = looked_at(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not there, skipped") == len(CASES)


def test_an_input_that_is_taken_wrongly_fails(tmp_path: Path):
    make_clip(tmp_path / "av1.mkv")  # H.264, which plays
    done = looked_at(tmp_path, "--only", "av1.mkv")
    assert done.returncode == 1, done.stderr
    assert "NO" in done.stdout
