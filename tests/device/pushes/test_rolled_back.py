"""Pushes that were rolled back: to what, by a restart too, on full disks, and without an edge.toml."""

import pytest

from edge.device.pushes.memory import PushMemory
from edge.device.pushes.trial import PushState
from tests.support.pushes import STRICT, FullDisk, PushDoor, push, unreadable


def test_a_restart_while_it_is_on_trial_rolls_it_back_for_good(door: PushDoor):
    door.tried(push(1, STRICT))
    again = door.restarted()
    assert (again.trial.state, again.memory.report.version) == (PushState.ROLLED_BACK, 1)
    assert (again.memory.report.status, again.memory.versions) == ("rolled_back", {})
    assert "restarted while it was on trial" in (again.memory.report.error or "")
    again.trial.take("device", push(1, STRICT))
    assert again.trial.state is PushState.ROLLED_BACK, "the same push does not come back"
    again.tried(push(2, STRICT))


def test_what_was_on_trial_when_the_daemon_ended_is_not_in_force_before_it_is_rolled_back(door: PushDoor):
    door.tried(push(1, STRICT))
    memory = PushMemory(door.read)
    assert memory.interrupted == ("device", 1)
    assert (memory.version, memory.versions) == (None, {})
    assert memory.settings().decision.target_fpir == 0.001


def test_what_was_on_trial_is_rolled_back_when_a_reload_finds_it(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    door.tried(push(1, STRICT))
    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.read_bounded", unreadable)
        door.restarted()
    assert door.trial.state is None, "the disk did not give it at the start"
    door.apply(door.memory.settings())
    door.trial.tell()
    assert (door.told[-1]["status"], door.told[-1]["versions"]) == ("rolled_back", {})
    assert door.in_force.decision.target_fpir == 0.001


def test_what_is_rolled_back_leaves_the_last_good(door: PushDoor):
    door.kept(push(1, STRICT))
    door.tried(push(2, {"decision": {"target_fpir": 0.5}}))
    door.works = False
    door.wait(30)
    assert door.in_force.decision.target_fpir == 0.0001
    assert door.memory.settings().decision.target_fpir == 0.0001
    assert door.memory.report.status == "rolled_back"
    assert door.memory.report.error == "no frame of front was looked at"
    assert door.memory.versions == {"device": 1}
    assert door.metrics.counts()["config.rolled_back"] == 1


def test_what_was_rolled_back_is_told_after_a_restart(door: PushDoor):
    door.tried(push(1, STRICT))
    door.works = False
    door.wait(30)
    again = door.restarted()
    again.trial.tell()
    told = again.told[-1]
    assert (told["status"], told["version"], told["error"]) == (
        "rolled_back",
        1,
        "no frame of front was looked at",
    )


def test_a_push_that_fails_on_a_full_disk_is_rolled_back_all_the_same(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    door.trial.take("device", push(1, STRICT))
    door.works, disk = False, FullDisk(monkeypatch)
    door.wait(60)
    assert door.in_force.decision.target_fpir == 0.001
    assert (door.told[-1]["status"], door.told[-1]["error"]) == (
        "rolled_back",
        "no frame of front was looked at",
    )
    assert sum("cannot be written" in each.message for each in caplog.records) < 4
    assert door.after_restart().decision.target_fpir == 0.001, "a restart now would not bring it back"
    disk.mend()
    door.works = True
    door.trial.take("device", push(2, STRICT))
    door.wait(15)
    assert (door.told[-1]["status"], door.memory.versions) == ("applied", {"device": 2})


def test_the_end_of_a_trial_is_written_when_the_disk_is_back(door: PushDoor, monkeypatch: pytest.MonkeyPatch):
    door.trial.take("device", push(1, STRICT))
    door.works, disk = False, FullDisk(monkeypatch)
    door.wait(20)
    assert PushMemory(door.read).interrupted == ("device", 1), "the disk still says that it is on trial"
    disk.mend()
    door.wait(10)
    assert PushMemory(door.read).interrupted is None


def test_a_way_back_that_cannot_be_built_is_tried_again(door: PushDoor):
    door.trial.take("device", push(1, STRICT))
    door.works = door.builds = False
    door.wait(30)
    assert door.in_force.decision.target_fpir == 0.0001
    door.builds = True
    door.wait(10)
    assert door.in_force.decision.target_fpir == 0.001
    assert door.told[-1]["status"] == "rolled_back"


def test_a_way_back_is_found_without_edge_toml(door: PushDoor):
    door.trial.take("device", push(1, STRICT))
    door.works = False
    door.path.write_text("nonsense")
    door.wait(30)
    assert door.in_force.decision.target_fpir == 0.001


def test_a_door_starts_on_a_full_disk_after_a_push_was_on_trial(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    door.tried(push(1, STRICT))
    FullDisk(monkeypatch)
    again = door.restarted()
    assert (again.memory.report.status, again.trial.state) == ("rolled_back", PushState.ROLLED_BACK)
    assert again.memory.versions == {}
