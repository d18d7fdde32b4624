"""Commands executed: each is done once, remembered over a restart, and told where it was interrupted."""

import base64
import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import CommandError, ConfigError, FileError
from edge.core.metrics import Metrics
from edge.device.children.errands import LABEL, PHOTO, Errand, read_json
from edge.device.commands.executor import (
    ANOTHER,
    FAILED,
    REFUSALS_AT_ONCE,
    REFUSALS_NOTED_AT_ONCE,
    CommandExecutor,
)
from edge.device.commands.parse import PAYLOAD_TYPE, Command, Reply, Rules
from edge.device.commands.verbs import Verbs
from edge.device.settings.load import load
from edge.mqtt.broker import Received
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import EnrollArgs, ResponsePayload
from tests.device.commands.test_parse import NOW, TOPICS, content, signed
from tests.support.clock import SteppedClock
from tests.support.pushes import OTHER_KEY, TRUSTED
from tests.support.waits import wait_until


class Bench:
    """An executor whose actions count, and whose errands are small programs."""

    def __init__(self, directory: Path, errands: Callable[[Command], Errand] | None = None) -> None:
        self.directory, self.errands = directory, errands or self.no_errand
        self.done: list[str] = []
        self.told: list[ResponsePayload] = []
        self.replies: list[tuple[str, bytes | None]] = []
        self.metrics = Metrics()
        self.clock = SteppedClock()
        self.executor = self.open()

    def open(self) -> CommandExecutor:
        return CommandExecutor(
            TOPICS,
            self.directory,
            lambda: Rules((TRUSTED,), True),
            actions={"reload": self.act, "subjects": self.act, "diagnostics": self.act, "snapshot": self.act},
            errands=self.errands,
            publish=self.publish,
            metrics=self.metrics,
            clock=self.clock,
        )

    def publish(self, topic: str, payload: bytes, correlation: bytes | None) -> None:
        self.told.append(ResponsePayload.model_validate_json(payload))
        self.replies.append((topic.removeprefix(f"{TOPICS.root}/response/"), correlation))

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.directory / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def act(self, command: Command) -> dict[str, Any]:
        self.done.append(command.transaction)
        return {"message": f"done {len(self.done)}"}

    def no_errand(self, command: Command) -> Errand:
        raise CommandError("not at this door")

    def command(
        self, verb: str, transaction: str, args: dict[str, Any] | None = None, **changes: Any
    ) -> None:
        data = signed(verb, args or {}, transaction=transaction, **changes)
        self.executor.take(verb, Received(1, TOPICS.command(verb), data))

    def finish(self) -> ResponsePayload:
        before = len(self.told)

        def ended() -> bool:
            self.executor.tick()
            return len(self.told) > before

        wait_until(ended)
        return self.told[-1]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "commands")


def test_the_same_transaction_gets_the_same_answer_also_after_a_restart(bench: Bench):
    bench.command("reload", "t-1")
    bench.command("reload", "t-1")
    bench.executor = bench.open()
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
        bench.executor.tick()
    bench.executor = bench.open()
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
    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify", PHOTO), "no base64!"))
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
    bench.executor.tick()
    bench.executor.stop()


def test_a_command_that_is_being_done_is_answered_once_however_often_it_is_asked_for(tmp_path: Path):
    bench = Bench(tmp_path / "commands", lambda command: Errand(("--version",)))
    bench.command("revoke", "t-1", {"subject": "p-1"})
    bench.executor.tick()
    bench.command("revoke", "t-1", {"subject": "p-1"})
    assert bench.told == [], "it is being done: its answer follows"
    bench.command("revoke", "t-1", {"subject": "p-2"})
    assert [each.error for each in bench.told] == [ANOTHER]
    assert bench.finish().status == "ok"
    bench.command("revoke", "t-1", {"subject": "p-1"})
    assert [each.status for each in bench.told] == ["error", "ok", "ok"]


FEW = 8
"""Commands that are remembered beyond their end, in tests that send more than that."""


def test_what_has_not_expired_is_never_done_again_however_many_came_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.device.commands.answers.REMEMBERED", FEW)
    for number in range(FEW + 5):
        bench.command("reload", f"t-{number}")
    bench.executor = bench.open()
    bench.command("reload", "t-0")
    assert len(bench.done) == FEW + 5


def test_what_has_expired_makes_room(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.device.commands.answers.REMEMBERED", FEW)
    for number in range(FEW + 5):
        bench.command("reload", f"t-{number}")
    bench.clock.now_s += 360
    bench.command("reload", "t-new", expires_at=(bench.clock.now() + timedelta(minutes=5)).isoformat())
    assert len(json.loads((bench.directory / "answers.json").read_text())["answers"]) == FEW


def test_more_than_can_be_remembered_is_refused_until_some_have_expired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.device.commands.answers.MAX_REMEMBERED", 3)
    for number in range(5):
        bench.command("reload", f"t-{number}")
    assert bench.done == ["t-0", "t-1", "t-2"]
    assert "have not expired" in (bench.told[-1].error or "")
    bench.clock.now_s += 360
    bench.command("reload", "t-4", expires_at=(bench.clock.now() + timedelta(minutes=5)).isoformat())
    assert bench.done[-1] == "t-4"


def test_a_memory_from_before_ends_were_written_is_read(bench: Bench):
    bench.directory.mkdir(parents=True)
    (bench.directory / "answers.json").write_text(
        '{"answers": {"t-1": {"content": "c", "error": null, "data": {}}}}'
    )
    bench.executor = bench.open()
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
    monkeypatch.setattr("edge.device.children.child.EDGE", (sys.executable, "-c", code))


def test_a_child_that_says_too_much_is_told_by_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    python(monkeypatch, TALKATIVE)
    bench = Bench(tmp_path / "commands", lambda command: Errand(("identify",)))
    bench.command("identify", "t-1", {"photo": "x" * 20})
    assert bench.finish().error == "no face"


def test_a_child_that_never_stops_talking_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.device.children.child.MAX_SAID_BYTES", 100_000)
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
    bench.executor.tick()
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


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        pytest.param("revoke", {"subject": "p\0"}, id="an id"),
        pytest.param("enroll", {"subject": "p", "groups": ["\0"], "photo": "x" * 16}, id="a group"),
    ],
)
def test_what_no_program_can_be_given_is_told_and_noted_and_leaves_nothing_open(
    tmp_path: Path, verb: str, args: dict[str, Any]
):
    verbs = Verbs(lambda: load(None, {}), *[lambda *_: None] * 6)  # type: ignore[arg-type]
    bench = Bench(tmp_path / "commands", verbs.errand)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(2):
        bench.command(verb, "t-1", args)
        bench.executor.tick()
        assert "no program can be given" in (bench.told[-1].error or "")
        bench.executor = bench.open()
    assert len(bench.told) == 2
    assert [each["outcome"] for each in bench.lines("audit")] == ["error"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def nobody_thought_of_it(*_: Any) -> Any:
    raise TypeError("nobody thought of it")


@pytest.mark.parametrize(
    ("verb", "errands", "waits"),
    [
        pytest.param("reload", None, False, id="an action"),
        pytest.param("revoke", nobody_thought_of_it, True, id="what an errand is made of"),
        pytest.param(
            "revoke", lambda command: Errand(("--version",), read=nobody_thought_of_it), True, id="an answer"
        ),
    ],
)
def test_what_fails_as_nobody_thought_of_is_answered_and_raised(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    errands: Callable[[Command], Errand] | None,
    waits: bool,
):
    monkeypatch.setattr(Bench, "act", nobody_thought_of_it)
    bench = Bench(tmp_path / "commands", errands)
    before = len(list(Path("/proc/self/fd").iterdir()))

    def ask() -> None:
        bench.command(verb, "t-1", {"subject": "p-1"} if waits else {})
        bench.finish()

    with pytest.raises(TypeError):
        ask()
    bench.executor.tick()
    assert [each.error for each in bench.told] == [FAILED]
    assert [each["outcome"] for each in bench.lines("audit")] == ["error"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    bench.executor = bench.open()
    bench.command(verb, "t-1", {"subject": "p-1"} if waits else {})
    assert bench.told[-1].error == FAILED, "not that the daemon was restarted"


def test_an_action_that_fails_leaves_the_child_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bench, "act", nobody_thought_of_it)
    bench = Bench(tmp_path / "commands", lambda command: Errand(("--version",)))
    bench.command("revoke", "t-1", {"subject": "p-1"})
    bench.executor.tick()
    with pytest.raises(TypeError):
        bench.command("reload", "t-2")
    assert (bench.finish().status, bench.told[-1].transaction) == ("ok", "t-1")


def test_what_was_done_is_noted_also_where_it_cannot_be_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def fill_the_disk(command: Command) -> dict[str, Any]:
        monkeypatch.setattr("edge.core.files.write_whole", no_room)
        return {}

    def no_room(path: Path, data: bytes) -> None:
        raise FileError(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(bench, "act", fill_the_disk)
    bench.executor = bench.open()
    bench.command("reload", "t-1")
    assert [each.status for each in bench.told] == ["ok"]
    assert [(each["verb"], each["outcome"]) for each in bench.lines("audit")] == [("reload", "ok")]


@pytest.mark.parametrize("name", ["{photo}", "{label}", "Given.PHOTO", "photo"])
def test_no_id_is_taken_for_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    python(monkeypatch, "import sys, json; print(json.dumps({'argv': sys.argv[1:]}))")
    made = Errand((name, PHOTO), base64.b64encode(b"x" * 20).decode(), read_json)
    bench = Bench(tmp_path / "commands", lambda command: made)
    bench.command("identify", "t-1", {"photo": "x" * 20})
    assert bench.finish().data == {"argv": [name, "/proc/self/fd/0"]}


@pytest.mark.parametrize(
    ("verb", "payload", "transaction", "where", "reason"),
    [
        pytest.param("open", signed("open"), "t-1", "refused", "unknown_verb", id="unknown verb"),
        pytest.param("reload", b"x" * 9000, None, "reload", "too_large", id="oversize"),
        pytest.param("reload", b'{"transaction": NaN}', None, "reload", "malformed", id="NaN"),
        pytest.param("reload", b"", None, "reload", "malformed", id="empty"),
        pytest.param(
            "reload",
            sign(content("reload", {}), PAYLOAD_TYPE, [OTHER_KEY]),
            "t-1",
            "reload",
            "untrusted_key",
            id="wrong key",
        ),
        pytest.param("reload", b'{"transaction": "t-1"}', "t-1", "reload", "unsigned", id="unsigned"),
    ],
)
def test_every_refusal_is_answered_and_counted_by_its_reason(
    bench: Bench, verb: str, payload: bytes, transaction: str | None, where: str, reason: str
):
    bench.executor.take(verb, Received(1, TOPICS.command(verb), payload))
    own = f"{TOPICS.root}/response/mine"
    bench.executor.take(
        verb, Received(1, TOPICS.command(verb), payload, response_topic=own, correlation=b"\x07")
    )
    assert bench.replies == [(where, None), ("mine", b"\x07")]
    assert [(each.status, each.transaction) for each in bench.told] == [("error", transaction)] * 2
    assert bench.metrics.counts() == {"commands.refused": 2, f"commands.refused.{reason}": 2}
    assert [(each["reason"], each["count"]) for each in bench.lines("refused")] == [(reason, 1), (reason, 2)]


def test_refusals_are_counted_all_but_told_and_noted_seldom(bench: Bench):
    for _ in range(1000):
        bench.executor.take("reload", Received(1, TOPICS.command("reload"), b"junk"))
    assert REFUSALS_AT_ONCE <= len(bench.told) <= REFUSALS_AT_ONCE + 5
    assert len(bench.lines("refused")) == REFUSALS_NOTED_AT_ONCE
    assert bench.metrics.counts()["commands.refused.malformed"] == 1000


def test_a_signed_look_that_is_played_again_shows_nothing_new_also_after_a_restart(bench: Bench):
    bench.command("subjects", "t-1")
    bench.command("subjects", "t-1")
    bench.executor = bench.open()
    bench.command("subjects", "t-1")
    assert bench.done == ["t-1"]
    assert [each.status for each in bench.told] == ["ok", "error", "error"]
    assert "duplicate" in (bench.told[-1].error or "")
    assert "done 1" not in (bench.directory / "answers.json").read_text(), "whom it showed is not kept"


def test_who_looked_at_persons_is_noted(bench: Bench):
    bench.command("snapshot", "t-1", {"camera": "front"})
    bench.command("diagnostics", "t-2")
    plain = json.dumps({"transaction": "t-3", "args": {}}).encode()
    bench.executor.take("subjects", Received(1, TOPICS.command("subjects"), plain))
    at = NOW.isoformat()
    assert bench.lines("reads") == [
        {
            "at": at,
            "verb": "snapshot",
            "transaction": "t-1",
            "subject": None,
            "camera": "front",
            "by": TRUSTED[:16],
            "outcome": "ok",
        },
        {"at": at, "verb": "subjects", "transaction": "t-3", "subject": None, "by": None, "outcome": "ok"},
    ]
    assert bench.lines("audit") == []


def test_what_was_changed_is_noted_with_the_key_that_signed_it(bench: Bench):
    bench.command("reload", "t-1")
    [line] = bench.lines("audit")
    assert (line["verb"], line["by"], line["outcome"]) == ("reload", TRUSTED[:16], "ok")


def test_a_label_reaches_the_child_and_is_no_argument_that_others_could_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    code = "import sys, json; print(json.dumps({'argv': sys.argv[1:], 'label': open(sys.argv[1]).read()}))"
    python(monkeypatch, code)
    bench = Bench(tmp_path / "commands", lambda command: Errand((LABEL,), label="Älice", read=read_json))
    bench.command("enroll", "t-1", {"subject": "p-1", "visit": "v-1"})
    answer = bench.finish()
    assert answer.data["label"] == "Älice"
    assert "lice" not in "".join(answer.data["argv"])


def test_enrolling_puts_no_label_among_the_arguments():
    verbs = Verbs(lambda: load(None, {}), *[lambda *_: None] * 6, ("--config", "x"))  # type: ignore[arg-type]
    for args in ({"photo": "x" * 16}, {"visit": "v-1"}):
        known = EnrollArgs(subject="p-1", label="Alice", groups=["staff"], **args)
        command = Command("enroll", "t-1", known, Reply("x"), "", None, None)
        made = verbs.errand(command)
        assert "Alice" not in " ".join(map(str, made.arguments))
        assert (made.label, LABEL in made.arguments) == ("Alice", True)


def test_a_memory_that_cannot_be_read_refuses_changes_and_keeps_no_door_shut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    bench.command("reload", "t-1")

    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.read_bounded", fail)
        bench.executor = bench.open()
        bench.command("reload", "t-1")
        bench.command("reload", "t-2")
    assert [each.error for each in bench.told[1:]] == [
        f"{bench.directory}/answers.json: cannot be read: Input/output error"
    ] * 2
    bench.command("reload", "t-1")
    bench.command("reload", "t-2")
    assert bench.done == ["t-1", "t-2"], "the disk is back, and what was done is done once"


def test_a_memory_found_damaged_later_refuses_changes_and_is_said_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    bench.command("reload", "t-1")
    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.read_bounded", fail)
        bench.executor = bench.open()
        bench.command("reload", "t-2")
    (bench.directory / "answers.json").write_text("{")
    bench.command("reload", "t-3")
    bench.command("reload", "t-4")
    assert bench.done == ["t-1"]
    assert ["damaged;" in (each.error or "") for each in bench.told] == [False, False, True, True]
    assert len([each for each in caplog.records if "are refused" in each.getMessage()]) == 2
