"""Pushes that were kept: what they set over restarts, and on disks that do not give them."""

from pathlib import Path

import pytest

from edge.core.errors import ConfigError
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.push import effective_hash
from edge.device.pushes.trial import PushState
from tests.support.pushes import FLEET, STRICT, PushDoor, push, unreadable


def test_a_push_that_is_kept_survives_a_restart(door: PushDoor):
    door.kept(push(1, STRICT))
    told = door.told[-1]
    assert (told["status"], told["version"], told["versions"]) == ("applied", 1, {"device": 1})
    assert told["keys"] == {"decision.target_fpir": "applied"}
    assert door.after_restart().decision.target_fpir == 0.0001
    assert door.metrics.counts()["config.applied"] == 1
    assert door.restarted().memory.report.status == "applied"
    assert door.trial.state is PushState.KEPT


def test_layers_lie_one_over_the_other(door: PushDoor):
    layers = [
        ("fleet", FLEET, {"decision": {"min_shots": 3, "max_shots": 9}}),
        ("group:entrances", {"scope": "group", "name": "entrances"}, {"decision": {"min_shots": 4}}),
        ("group:north", {"scope": "group", "name": "north"}, {"decision": {"margin": 0.1}}),
        ("device", {}, {"decision": {"min_shots": 5}}),
    ]
    for layer, who, patch in reversed(layers):
        door.kept(push(1, patch, **who), layer)
    values = door.after_restart().decision
    assert (values.min_shots, values.max_shots, values.margin) == (5, 9, 0.1)
    door.kept(push(2))
    assert door.after_restart().decision.min_shots == 4, "an empty patch takes its layer back"
    assert door.memory.version == 2


def test_a_restart_applies_what_needed_one(door: PushDoor):
    door.kept(push(1, {"log": {"level": "debug"}}))
    assert door.memory.report.keys == {"log.level": "needs_restart"}
    assert door.restarted().memory.report.keys == {"log.level": "applied"}


def test_a_file_that_no_longer_goes_with_the_pushes_stands_alone(
    door: PushDoor, caplog: pytest.LogCaptureFixture
):
    door.kept(push(1, {"decision": {"max_shots": 2}}))
    door.path.write_text(door.path.read_text() + "\ndecision.min_shots = 4\n")
    settings = door.after_restart()
    assert (settings.decision.min_shots, settings.decision.max_shots) == (4, 6)
    assert "stands alone" in caplog.text


def test_a_damaged_memory_is_not_taken_for_none(door: PushDoor):
    door.kept(push(5, STRICT))
    door.file.write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        PushMemory(door.read)
    with pytest.raises(ConfigError, match="damaged"):
        door.after_restart()


def test_a_memory_that_cannot_be_read_refuses_pushes_and_keeps_no_door_shut(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    door.kept(push(5, STRICT))
    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.read_bounded", unreadable)
        again = door.restarted()
        again.trial.take("device", push(6))
        assert again.trial.state is None
        assert "not known" in again.refused
    again.trial.take("device", push(4))
    assert again.trial.state is PushState.KEPT, "old pushes are not let in"
    assert "came before" in again.refused
    assert (again.memory.report.status, again.memory.report.version) == ("applied", 5)
    assert again.memory.versions == {"device": 5}
    assert again.memory.settings().decision.target_fpir == 0.0001
    again.tried(push(6))


class BlindDoor(PushDoor):
    """A door that was started while the disk did not give what was pushed before: version 5, kept."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, read: bool = False) -> None:
        super().__init__(directory, "push.probation_s = 10")
        self.kept(push(5, STRICT))
        with monkeypatch.context() as patch:
            if not read:
                patch.setattr("edge.core.files.read_bounded", unreadable)
            self.start(self.read({}))
            self.trial.tell()
            self.wait(60)

    @property
    def shown(self) -> tuple[str, str, float]:
        """What is told, and what is in force."""
        told = self.told[-1]
        assert told["effective"] == effective_hash(self.in_force)
        return told["status"], str(told["versions"]), self.in_force.decision.target_fpir


GOOD = ("applied", "{'device': 5}", 0.0001)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(None, id="nothing comes"),
        pytest.param(b"junk", id="junk"),
        pytest.param(push(5, STRICT), id="the retained push again"),
        pytest.param(push(4), id="an older push"),
    ],
)
def test_what_was_kept_before_is_put_in_force_when_the_disk_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: bytes | None
):
    door = BlindDoor(tmp_path, monkeypatch)
    if message is None:
        door.wait(10)
    else:
        door.trial.take("device", message)
    assert door.shown == GOOD
    told = len(door.told)
    door.wait(30)
    assert door.shown == GOOD
    assert len(door.told) <= told + 1, "at most what was refused is told beside"


def test_a_reload_reads_what_was_kept_before_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    door = BlindDoor(tmp_path, monkeypatch)
    door.apply(door.memory.settings())
    door.trial.tell()
    assert door.shown == GOOD


def test_what_was_kept_before_and_cannot_be_built_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    door = BlindDoor(tmp_path, monkeypatch)
    door.builds, before = False, len(door.told)
    door.trial.take("device", b"junk")
    door.wait(20)
    assert len(door.told) == before, "nothing is said to be applied"
    door.builds = True
    door.wait(10)
    assert door.shown == GOOD


def test_what_only_one_of_two_readers_was_given_is_put_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert BlindDoor(tmp_path, monkeypatch, read=True).shown == GOOD


def test_a_new_push_is_tried_over_what_was_kept_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    door = BlindDoor(tmp_path, monkeypatch)
    door.trial.take("device", push(6, {"decision": {"target_fpir": 0.5}}))
    assert door.in_force.decision.target_fpir == 0.5
    door.works = False
    door.wait(30)
    assert door.shown == ("rolled_back", "{'device': 5}", 0.0001)


def test_a_memory_found_damaged_later_refuses_pushes_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    door = BlindDoor(tmp_path, monkeypatch)
    door.file.write_text("{")
    for version in (6, 7):
        door.trial.take("device", push(version))
        door.wait(30)
    assert "damaged" in door.refused
    assert door.told[-1]["refused"]["reason"] == "memory"
    lines = [each.getMessage() for each in caplog.records if "stands alone" in each.getMessage()]
    assert len(lines) == 2, lines
