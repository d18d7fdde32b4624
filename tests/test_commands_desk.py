"""The desk of commands: each is done once, remembered over a restart, and told where it was interrupted."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.children import PHOTO, Errand, read_json
from edge.clock import SystemClock
from edge.commands import REMEMBERED, CommandDesk, CommandFiles
from edge.errors import CommandError, ConfigError, FileError
from edge.metrics import Metrics
from edge.mqtt.broker import Received
from edge.mqtt.commanding import Command, Rules
from edge.mqtt.payloads_command import ResponsePayload
from tests.broker import wait_until
from tests.mqtt.test_commanding import NOW, TOPICS, signed
from tests.pushes import TRUSTED


class FixedClock(SystemClock):
    def __init__(self) -> None:
        self.at = NOW.astimezone(UTC)

    def now(self) -> datetime:
        return self.at


class Bench:
    """A desk whose actions count, and whose errands are small programs."""

    def __init__(self, directory: Path, errands: Callable[[Command], Errand] | None = None) -> None:
        self.directory, self.errands = directory, errands or self.no_errand
        self.done: list[str] = []
        self.told: list[ResponsePayload] = []
        self.metrics = Metrics()
        self.clock = FixedClock()
        self.desk = self.open()

    def open(self) -> CommandDesk:
        return CommandDesk(
            TOPICS,
            CommandFiles(self.directory),
            lambda: Rules((TRUSTED,), True),
            actions={"reload": self.act},
            errands=self.errands,
            publish=lambda topic, payload, correlation: self.told.append(
                ResponsePayload.model_validate_json(payload)
            ),
            metrics=self.metrics,
            clock=self.clock,
        )

    def act(self, command: Command) -> dict[str, Any]:
        self.done.append(command.transaction)
        return {"message": f"done {len(self.done)}"}

    def no_errand(self, command: Command) -> Errand:
        raise CommandError("not at this door")

    def command(
        self, verb: str, transaction: str, args: dict[str, Any] | None = None, **changes: Any
    ) -> None:
        data = signed(verb, args or {}, transaction=transaction, **changes)
        self.desk.take(verb, Received(1, TOPICS.command(verb), data))

    def finish(self) -> ResponsePayload:
        before = len(self.told)

        def ended() -> bool:
            self.desk.tick()
            return len(self.told) > before

        wait_until(ended, 30)
        return self.told[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "commands")


def test_the_same_transaction_gets_the_same_answer_also_after_a_restart(bench: Bench):
    bench.command("reload", "t-1")
    bench.command("reload", "t-1")
    bench.desk = bench.open()
    bench.command("reload", "t-1")
    assert bench.done == ["t-1"]
    assert [each.data for each in bench.told] == [{"message": "done 1"}] * 3


def test_a_transaction_is_not_lent_to_another_command(bench: Bench):
    bench.command("reload", "t-1")
    bench.command("revoke", "t-1", {"subject": "p-1"})
    assert "another command" in (bench.told[-1].error or "")
    assert bench.done == ["t-1"]


def test_what_was_interrupted_is_told_and_not_done_again(tmp_path: Path):
    def explode(command: Command) -> Errand:
        raise KeyboardInterrupt  # the process ends here

    bench = Bench(tmp_path / "commands", explode)
    bench.command("revoke", "t-1", {"subject": "p-1"})
    with pytest.raises(KeyboardInterrupt):
        bench.desk.tick()
    bench.desk = bench.open()
    bench.command("revoke", "t-1", {"subject": "p-1"})
    assert "restarted" in (bench.told[-1].error or "")


def test_a_child_that_fails_is_told_in_its_last_line(tmp_path: Path):
    bench = Bench(tmp_path / "commands", lambda command: Errand(("subjects", "remove", "--", "--help")))
    bench.command("revoke", "t-1", {"subject": "p-1"})
    answer = bench.finish()
    assert (answer.status, answer.transaction) == ("error", "t-1")
    assert "--help" in (answer.error or ""), "an id is an id, whatever it looks like"
    assert list(tmp_path.glob("commands/*.part")) == []


def test_a_photo_that_is_none_is_told(tmp_path: Path):
    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify", "{photo}"), "no base64!"))
    bench.command("identify", "t-1", {"photo": "x" * 20})
    assert "base64" in (bench.finish().error or "")


def test_while_one_is_done_a_few_may_wait(tmp_path: Path):
    bench = Bench(tmp_path / "commands", lambda command: Errand(("--version",)))
    for number in range(12):
        bench.command("revoke", f"t-{number}", {"subject": "p-1"})
    assert [each.transaction for each in bench.told] == ["t-8", "t-9", "t-10", "t-11"]
    assert {each.error for each in bench.told} == {"busy; ask again later"}
    bench.command("revoke", "t-0", {"subject": "p-1"})
    assert len(bench.told) == 4, "its answer follows when it is done"
    bench.desk.tick()
    bench.desk.stop()


def test_what_has_not_expired_is_never_done_again_however_many_came_after_it(bench: Bench):
    for number in range(REMEMBERED + 5):
        bench.command("reload", f"t-{number}")
    bench.desk = bench.open()
    bench.command("reload", "t-0")
    assert len(bench.done) == REMEMBERED + 5


def test_what_has_expired_makes_room(bench: Bench):
    for number in range(REMEMBERED + 5):
        bench.command("reload", f"t-{number}")
    bench.clock.at += timedelta(minutes=6)
    bench.command("reload", "t-new", expires_at=(bench.clock.at + timedelta(minutes=5)).isoformat())
    assert len(json.loads((bench.directory / "answers.json").read_text())["answers"]) == REMEMBERED


def test_more_than_can_be_remembered_is_refused_until_some_have_expired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.commands.MAX_REMEMBERED", 3)
    for number in range(5):
        bench.command("reload", f"t-{number}")
    assert bench.done == ["t-0", "t-1", "t-2"]
    assert "have not expired" in (bench.told[-1].error or "")
    bench.clock.at += timedelta(minutes=6)
    bench.command("reload", "t-4", expires_at=(bench.clock.at + timedelta(minutes=5)).isoformat())
    assert bench.done[-1] == "t-4"


def test_a_memory_from_before_ends_were_written_is_read(bench: Bench):
    bench.directory.mkdir(parents=True)
    (bench.directory / "answers.json").write_text(
        '{"answers": {"t-1": {"content": "c", "error": null, "data": {}}}}'
    )
    bench.desk = bench.open()
    bench.command("reload", "t-1")
    assert bench.done == []


def test_a_damaged_memory_is_not_taken_for_none(bench: Bench):
    bench.command("reload", "t-1")
    (bench.directory / "answers.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        bench.open()


def test_what_cannot_be_remembered_is_not_done(bench: Bench):
    bench.directory.parent.mkdir(exist_ok=True)
    bench.directory.write_text("a file")
    bench.command("reload", "t-1")
    assert bench.done == []
    assert "cannot be made" in (bench.told[-1].error or "")


TALKATIVE = (
    "import sys; sys.stderr.write('libpng warning: bad chunk\\n' * 30_000 + 'edge: no face\\n'); sys.exit(1)"
)


def python(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every child be this program."""
    monkeypatch.setattr("edge.children.EDGE", (sys.executable, "-c", code))


def test_a_child_that_says_too_much_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    python(monkeypatch, TALKATIVE)
    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify",)))
    bench.command("identify", "t-1", {"photo": "x" * 20})
    assert bench.finish().error == "no face"


def test_a_child_that_never_stops_talking_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.children.MAX_SAID_BYTES", 100_000)
    python(monkeypatch, "while True: print('x' * 1000)")
    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify",)))
    bench.command("identify", "t-1", {"photo": "x" * 20})
    assert "said more" in (bench.finish().error or "")


def test_a_photo_reaches_the_child_and_never_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    code = "import sys, json, os; data = open(sys.argv[1], 'rb').read(); print(json.dumps({'n': len(data)}))"
    python(monkeypatch, code)
    photo = base64.b64encode(bytes(range(256)) * 100).decode()
    bench = Bench(tmp_path / "commands", lambda command: Errand((PHOTO,), photo, read_json))
    bench.command("identify", "t-1", {"photo": photo})
    bench.desk.tick()
    assert not (tmp_path / "commands").exists()
    assert bench.finish().data == {"n": 25_600}


def test_no_process_left_for_a_child_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: Any, **options: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify",)))
    bench.command("identify", "t-1", {"photo": "x" * 20})
    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("subprocess.Popen", refuse)
    assert "cannot be started" in (bench.finish().error or "")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_memory_that_cannot_be_read_refuses_changes_and_keeps_no_door_shut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.command("reload", "t-1")

    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("edge.safefile.read_bounded", fail)
        bench.desk = bench.open()
        bench.command("reload", "t-1")
        bench.command("reload", "t-2")
    assert [each.error for each in bench.told[1:]] == [
        f"{bench.directory}/answers.json: cannot be read: Input/output error"
    ] * 2
    bench.command("reload", "t-1")
    bench.command("reload", "t-2")
    assert bench.done == ["t-1", "t-2"], "the disk is back, and what was done is done once"
