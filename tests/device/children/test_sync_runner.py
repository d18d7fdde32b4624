"""Children that synchronise: real processes, one at a time, whatever they leave and however they end."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import Clock, SystemClock
from edge.core.errors import (
    ClockError,
    ConfigError,
    EdgeError,
    FileError,
    GalleryError,
    GalleryIntegrityError,
    HeldBackError,
    ModelIntegrityError,
    ModelMismatchError,
    RollbackError,
    SignatureError,
    SyncError,
)
from edge.core.metrics import Metrics
from edge.device.children import sync_runner
from edge.device.children.sync_runner import SyncRunner
from edge.device.reports import gallery_report
from edge.device.sync.outcome import SyncOutcome, load_outcome, read_outcome, reason_of, save_outcome
from tests.support.clock import SteppedClock
from tests.support.gallery_samples import gallery_of
from tests.support.waits import Stopwatch, wait_until

AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


Start = Callable[..., SyncRunner]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """What makes a runner whose children are a program that is called with the directory of outcomes."""
    runners: list[SyncRunner] = []

    def made(code: str, clock: Clock | None = None, metrics: Metrics | None = None) -> SyncRunner:
        monkeypatch.setattr("edge.device.children.child.EDGE", (sys.executable, "-c", code, str(tmp_path)))
        runners.append(SyncRunner(tmp_path, (), metrics=metrics or Metrics(), clock=clock or SystemClock()))
        return runners[-1]

    yield made
    for each in runners:
        each.stop()


def leaves(text: str) -> str:
    """Return a child that leaves a text as its outcome, in one step."""
    return (
        "import pathlib, sys; path = pathlib.Path(sys.argv[1]) / 'outcome.json'\n"
        f"part = path.with_suffix('.part'); part.write_text({text!r}); part.replace(path)"
    )


def says(status: str, version: int) -> str:
    """Return a child that leaves an outcome."""
    return leaves(SyncOutcome(status, version, 2, "sface", reason="server", at=AT).to_json())


def outcome(running: SyncRunner) -> SyncOutcome:
    found: list[SyncOutcome] = []

    def ended() -> bool:
        if (result := running.poll()) is not None:
            found.append(result)
        return bool(found)

    wait_until(ended)
    return found[0]


def test_what_the_child_leaves_is_told_once(runner: Start):
    running = runner(says("updated", 58))
    assert running.poll() is None
    running.request()
    assert outcome(running) == SyncOutcome("updated", 58, 2, "sface", reason="server", at=AT)
    assert running.poll() is None


def test_asked_while_one_runs_another_follows_and_never_two_at_once(runner: Start, tmp_path: Path):
    log = tmp_path / "log"
    running = runner(
        f"import time, pathlib; p = pathlib.Path({str(log)!r})\n"
        "f = p.open('a'); f.write('<'); f.flush(); time.sleep(.2); f.write('>')"
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
        pytest.param("pass", id="leaves nothing"),
        pytest.param(leaves("done"), id="no JSON"),
        pytest.param(leaves("[1, 2]"), id="no object"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", id="killed"),
        pytest.param(leaves('{"a":' + "[" * 15_000), id="deep"),
    ],
)
def test_a_child_that_leaves_nothing_sensible_is_a_failure(runner: Start, code: str):
    running = runner(code)
    running.request()
    result = outcome(running)
    assert (result.status, result.reason) == ("refused", "failed")
    assert "edge sync ended with" in (result.error or "")


def test_a_child_that_hangs_is_stopped(runner: Start, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sync_runner, "LIMIT_S", 0.3)
    running = runner("import time; time.sleep(60)")
    watch = Stopwatch()
    running.request()
    assert outcome(running).status == "refused"
    assert watch.undisturbed_s < 10


def test_what_was_found_published_already_is_not_asked_for_again(runner: Start):
    running = runner(says("current", 57))
    running.request(57)
    assert outcome(running).version == 57
    running.request(57)
    running.request(56)
    assert running.poll() is None
    running.request(58)
    assert outcome(running).version == 57
    running.request()
    assert outcome(running).version == 57


def test_what_is_known_of_another_scope_does_not_count(runner: Start, tmp_path: Path):
    running = runner(says("current", 3))
    left = SyncOutcome("current", 50, 3, "m", scope="back")
    for known in (left, replace(left, scope=None)):
        save_outcome(tmp_path, known)
        assert outcome(running) == known
        running.request(3, "front")
        assert outcome(running).version == 3
    save_outcome(tmp_path, replace(left, scope="front"))
    assert outcome(running).scope == "front"
    running.request(50, "front")
    assert running.poll() is None


def test_an_outcome_that_an_older_release_left_is_still_read(tmp_path: Path):
    old = '{"status": "current", "version": 57, "count": 2, "model_id": "m", "error": null, "beside": false}'
    (tmp_path / "outcome.json").write_text(old)
    assert load_outcome(tmp_path) == SyncOutcome("current", 57, 2, "m")


def test_a_version_that_was_refused_is_asked_for_again(runner: Start):
    running = runner(says("refused", 57))
    for _ in range(2):
        running.request(57)
        assert outcome(running).status == "refused"


def test_a_stop_ends_the_child(runner: Start):
    running = runner("import time; time.sleep(60)")
    running.request()
    running.stop()
    assert running.poll() is None
    running.stop()


def test_the_report_names_the_gallery_that_serves():
    gallery = replace(gallery_of([1, 1]), version=57, not_after=AT + timedelta(days=30))
    current = SyncOutcome("current", 99, 2, None, at=AT)
    report = gallery_report(current, gallery, AT, scope="front", published=99, revoked_applied_at=AT)
    assert (report.status, report.version, report.published, report.error) == ("current", 57, 99, None)
    assert (report.not_after, report.revoked_applied_at, report.synchronised_at) == (
        gallery.not_after,
        AT,
        AT,
    )
    failed = gallery_report(SyncOutcome("refused", 0, 0, None, "x" * 900, reason="rollback"), gallery, AT)
    assert (failed.status, len(failed.error or ""), failed.reason) == ("refused", 500, "rollback")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"status": "exploded", "version": 1, "count": 1, "model_id": null}', id="status"),
        pytest.param(b'{"status": "updated"}', id="half of it"),
        pytest.param(
            b'{"status": "refused", "version": 1, "count": 1, "model_id": null, "reason": "a.b c"}',
            id="reason",
        ),
        pytest.param(b"[" * 10_000, id="deep"),
    ],
)
def test_an_outcome_that_makes_no_sense_is_none(text: bytes, tmp_path: Path):
    assert read_outcome(text) is None
    (tmp_path / "outcome.json").write_bytes(text)
    assert load_outcome(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RollbackError("x"), "rollback"),
        (ClockError("x"), "clock"),
        (SignatureError("x"), "signature"),
        (HeldBackError("x"), "expired"),
        (SyncError("x"), "server"),
        (GalleryIntegrityError("x"), "integrity"),
        (ModelMismatchError("x"), "model"),
        (ModelIntegrityError("x"), "model"),
        (ConfigError("x"), "config"),
        (FileError("x"), "disk"),
        (GalleryError("x"), "gallery"),
    ],
)
def test_the_reason_of_a_refusal_is_one_word(error: EdgeError, reason: str):
    assert reason_of(error) == reason


def test_a_flood_of_requests_starts_few_children_and_the_last_is_not_lost(
    runner: Start, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sync_runner, "STARTS_AT_ONCE", 2)
    clock = SteppedClock()
    metrics = Metrics()
    running = runner(says("current", 3), clock, metrics)
    for _ in range(2):
        running.request()
        outcome(running)
    for _ in range(50):
        running.request()
        assert running.poll() is None
    assert metrics.counts()["sync.started"] == 2
    clock.now_s += 1 / sync_runner.STARTS_PER_S
    assert outcome(running).version == 3
    assert metrics.counts()["sync.started"] == 3
    clock.now_s += 1 / sync_runner.STARTS_PER_S
    assert running.poll() is None
    assert metrics.counts()["sync.started"] == 3


def test_a_child_that_cannot_be_started_is_told_and_tried_again(
    runner: Start, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    running = runner(says("current", 3))
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", refuse)
        running.request()
    assert "cannot be started" in outcome(running).error
    assert running.poll() is None
    running.request()
    assert outcome(running).status == "current"


def test_a_child_that_cannot_read_the_settings_is_told_with_its_last_line(runner: Start):
    code = "import sys; sys.stderr.write('a warning\\nedge: edge.toml: not valid TOML\\n'); sys.exit(78)"
    running = runner(code)
    running.request()
    result = outcome(running)
    assert (result.status, result.reason) == ("refused", "config")
    assert result.error == "edge sync ended with 78: edge.toml: not valid TOML"


def test_what_somebody_else_came_to_is_told_while_no_child_runs(runner: Start, tmp_path: Path):
    running = runner("raise SystemExit(3)")
    by_timer = SyncOutcome("updated", 60, 2, "m", at=AT, scope="front")
    save_outcome(tmp_path, by_timer)
    assert running.poll() == by_timer
    running.request(60, "front")
    assert running.poll() is None, "it is known"
