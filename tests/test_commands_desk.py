"""The desk of commands: each is done once, remembered over a restart, and told where it was interrupted."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge.children import Errand
from edge.clock import SystemClock
from edge.commands import REMEMBERED, CommandDesk, CommandFiles
from edge.errors import CommandError, ConfigError
from edge.metrics import Metrics
from edge.mqtt.broker import Received
from edge.mqtt.commanding import Command, Rules
from edge.mqtt.payloads_command import ResponsePayload
from tests.broker import wait_until
from tests.mqtt.test_commanding import NOW, TOPICS, signed
from tests.pushes import TRUSTED


class FixedClock(SystemClock):
    def now(self) -> datetime:
        return NOW.astimezone(UTC)


class Bench:
    """A desk whose actions count, and whose errands are small programs."""

    def __init__(self, directory: Path, errands: Callable[[Command], Errand] | None = None) -> None:
        self.directory, self.errands = directory, errands or self.no_errand
        self.done: list[str] = []
        self.told: list[ResponsePayload] = []
        self.metrics = Metrics()
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
            clock=FixedClock(),
        )

    def act(self, command: Command) -> dict[str, Any]:
        self.done.append(command.transaction)
        return {"message": f"done {len(self.done)}"}

    def no_errand(self, command: Command) -> Errand:
        raise CommandError("not at this door")

    def command(self, verb: str, transaction: str, args: dict[str, Any] | None = None) -> None:
        data = signed(verb, args or {}, transaction=transaction)
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


def test_only_so_many_answers_are_kept(bench: Bench):
    for number in range(REMEMBERED + 5):
        bench.command("reload", f"t-{number}")
    bench.command("reload", "t-0")
    assert len(bench.done) == REMEMBERED + 6


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
