"""A run of the tests that is killed leaves no process behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.leftovers import marked
from tests.support.places import ROOT
from tests.support.waits import wait_until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("options", [[], ["--numprocesses=1"]], ids=["one process", "a worker"])
def test_what_a_killed_run_has_started_ends(tmp_path: Path, options: list[str]):
    told = tmp_path / "told.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/endless.py"]
    with subprocess.Popen(
        [*command, f"--basetemp={tmp_path / 'run'}", *options],
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        env=os.environ | {"ENDLESS_TOLD": str(told)},
    ) as run:
        try:
            wait_until(lambda: told.exists() or run.poll() is not None)
            assert run.poll() is None
            left = json.loads(told.read_text())
            mark = left["mark"]
            assert set(left["started"]) <= set(marked(mark))
            run.send_signal(signal.SIGKILL)
            run.wait()
            wait_until(lambda: not marked(mark), "everything has ended")
        finally:
            run.kill()
