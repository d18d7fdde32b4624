"""The child that synchronises: real processes, one at a time, whatever they print and however they end."""

import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edge import syncing
from edge.clock import SystemClock
from edge.metrics import Metrics
from edge.syncing import SyncRunner, gallery_report
from tests.broker import wait_until
from tests.gallery.samples import gallery_of

AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


def runner(code: str) -> SyncRunner:
    return SyncRunner((sys.executable, "-c", code), metrics=Metrics(), clock=SystemClock())


def outcome(running: SyncRunner) -> dict[str, Any]:
    found: list[dict[str, Any]] = []

    def ended() -> bool:
        if (result := running.poll()) is not None:
            found.append(result)
        return bool(found)

    wait_until(ended)
    return found[0]


def test_what_the_child_says_is_told_once():
    running = runner("""print('{"status": "updated", "version": 58}')""")
    assert running.poll() is None
    running.request()
    assert outcome(running) == {"status": "updated", "version": 58}
    assert running.poll() is None


def test_asked_while_one_runs_another_follows_and_never_two_at_once(tmp_path):
    log = tmp_path / "log"
    running = runner(
        f"import time, pathlib; p = pathlib.Path({str(log)!r})\n"
        "f = p.open('a'); f.write('<'); f.flush(); time.sleep(.2); f.write('>'); print('{}')"
    )
    for _ in range(5):
        running.request()
    outcome(running)
    outcome(running)
    assert running.poll() is None
    assert log.read_text() == "<><>"


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("raise SystemExit(3)", id="fails silently"),
        pytest.param("print('done')", id="no JSON"),
        pytest.param("print([1, 2])", id="no object"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", id="killed"),
        pytest.param("print('{\"a\":' + '[' * 60000)", id="deep"),
    ],
)
def test_a_child_that_says_nothing_sensible_is_a_failure(code: str):
    running = runner(code)
    running.request()
    result = outcome(running)
    assert result["status"] == "refused"
    assert "edge sync ended with" in result["error"]


def test_a_child_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(syncing, "TIMEOUT_S", 0.3)
    running = runner("import time; time.sleep(60)")
    started_s = time.monotonic()
    running.request()
    assert outcome(running)["status"] == "refused"
    assert time.monotonic() - started_s < 10


def test_what_was_found_published_already_is_not_asked_for_again():
    running = runner("""print('{"status": "current", "version": 57}')""")
    running.request(57)
    assert outcome(running)["version"] == 57
    running.request(57)
    running.request(56)
    assert running.poll() is None
    running.request(58)
    assert outcome(running)["version"] == 57
    running.request()
    assert outcome(running)["version"] == 57


def test_a_version_that_was_refused_is_asked_for_again():
    running = runner("""print('{"status": "refused", "version": 57}')""")
    for _ in range(2):
        running.request(57)
        assert outcome(running)["status"] == "refused"


def test_a_stop_ends_the_child():
    running = runner("import time; time.sleep(60)")
    running.request()
    running.stop()
    assert running.poll() is None
    running.stop()


def test_the_report_names_the_gallery_that_serves():
    gallery = replace(gallery_of([1, 1]), version=57, not_after=AT + timedelta(days=30))
    report = gallery_report({"status": "current", "version": 99}, gallery, AT, revoked_applied_at=AT)
    assert (report.status, report.version, report.count, report.error) == ("current", 57, 2, None)
    assert (report.not_after, report.revoked_applied_at) == (gallery.not_after, AT)
    failed = gallery_report({"status": "exploded", "error": "x" * 900}, gallery, AT)
    assert (failed.status, len(failed.error or "")) == ("refused", 500)


def test_a_child_that_cannot_be_started_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    running = runner("""print('{"status": "current"}')""")
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", refuse)
        running.request()
    assert "cannot be started" in outcome(running)["error"]
    assert running.poll() is None
    running.request()
    assert outcome(running) == {"status": "current"}
