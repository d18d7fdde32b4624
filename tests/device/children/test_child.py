"""A child process: bounded, killed with whatever it started, and gone when the daemon is gone."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.core.clock import SystemClock
from edge.core.process import CHILD_OOM_SCORE, PARENT
from edge.device.children.child import EDGE, MAX_ADDRESS_BYTES, MAX_OUTPUT_BYTES, Child, Ended
from edge.device.settings.load import load
from tests.support.clock import SteppedClock
from tests.support.command_line import write_config
from tests.support.streams import SilentServer
from tests.support.waits import LIMIT_S, wait_until

DAEMON = """
import sys, time
from edge.core.clock import SystemClock
from edge.device.children.child import Child
child = Child(("run", "--config", sys.argv[1]), 60, SystemClock())
print(child._process.pid, flush=True)
time.sleep(60)
"""


def runs(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(child: Child) -> Ended:
    found: list[Ended] = []

    def polled() -> bool:
        if (result := child.poll()) is not None:
            found.append(result)
        return bool(found)

    wait_until(polled)
    return found[0]


@pytest.fixture
def camera() -> Iterator[SilentServer]:
    with SilentServer() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, camera: SilentServer) -> Path:
    """Settings with which `edge run` goes on without end, and opens a camera."""
    return write_config(
        tmp_path,
        "[cameras.front]",
        f'source = "http://127.0.0.1:{camera.port}/"',
        site="test",
        device="door",
        state_dir=tmp_path / "state",
        models_dir=load().models_path,
    )


@pytest.fixture
def daemon(settings: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", DAEMON, str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def python(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every child be this program."""
    monkeypatch.setattr("edge.device.children.child.EDGE", (sys.executable, "-c", code))


def test_a_child_ends_when_its_daemon_is_killed(daemon: subprocess.Popen[str], camera: SilentServer):
    assert daemon.stdout is not None
    pid = int(daemon.stdout.readline())
    wait_until(lambda: camera.taken, "the child runs")
    assert runs(pid)
    daemon.kill()
    wait_until(lambda: not runs(pid))


def test_a_child_whose_daemon_had_ended_before_it_looked_ends_at_once():
    told = subprocess.run([*EDGE, "--version"], env={**os.environ, PARENT: "1"}, check=False, timeout=LIMIT_S)
    assert told.returncode == 128 + 9


def test_the_variable_is_no_setting_and_is_not_handed_on():
    told = subprocess.run(
        [*EDGE, "check"], env={**os.environ, PARENT: str(os.getpid())}, capture_output=True, timeout=LIMIT_S
    )
    assert PARENT.encode() not in told.stderr


def test_whatever_a_child_has_started_is_killed_with_it(monkeypatch: pytest.MonkeyPatch):
    python(
        monkeypatch,
        "import subprocess, sys, time\n"
        "sys.stdout.write(str(subprocess.Popen(['sleep', '60']).pid)); sys.stdout.flush(); time.sleep(60)",
    )
    child = Child((), 60.0, SystemClock())
    wait_until(lambda: os.pread(child._out, 20, 0))
    started = int(os.pread(child._out, 20, 0))
    assert runs(started)
    child.stop()
    wait_until(lambda: not runs(started))


def test_a_child_that_takes_too_long_is_stopped_and_told(monkeypatch: pytest.MonkeyPatch):
    python(monkeypatch, "import time; time.sleep(60)")
    clock = SteppedClock()
    child = Child((), 2.0, clock)
    assert child.poll() is None
    clock.now_s += 2.1
    assert ended(child) == Ended(None, problem="it took more than 2 s and was stopped")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("print('done')", Ended(0, "done"), id="output"),
        pytest.param(
            "import sys; sys.stderr.write('a\\nedge: no face\\n'); sys.exit(1)",
            Ended(1, "", "no face"),
            id="complaint",
        ),
        pytest.param(
            f"print('x' * {MAX_OUTPUT_BYTES + 1})",
            Ended(0, problem=f"it said more than {MAX_OUTPUT_BYTES} bytes"),
            id="too much output",
        ),
        pytest.param("import sys; print(repr(sys.stdin.read()))", Ended(0, "''"), id="nothing to read"),
    ],
)
def test_what_a_child_said_is_told_and_no_file_stays_open(
    monkeypatch: pytest.MonkeyPatch, code: str, expected: Ended
):
    python(monkeypatch, code)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert ended(Child((), 60.0, SystemClock())) == expected
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_its_memory_is_bounded_and_it_goes_before_the_daemon(settings: Path, camera: SilentServer):
    child = Child(("run", "--config", str(settings)), 60, SystemClock())
    try:
        proc = Path(f"/proc/{child._process.pid}")
        limits = (proc / "limits").read_text()
        assert re.search(
            rf"^Max address space +{MAX_ADDRESS_BYTES} +{MAX_ADDRESS_BYTES} ", limits, re.MULTILINE
        )
        own = int(Path("/proc/self/oom_score_adj").read_text())
        assert int((proc / "oom_score_adj").read_text()) == CHILD_OOM_SCORE > own
    finally:
        child.stop()
