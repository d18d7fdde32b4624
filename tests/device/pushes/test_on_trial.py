"""Pushes on trial: what is in force meanwhile, what is told of it, and what decides how it ends."""

from typing import Any

import pytest

from edge.device.pushes.trial import SETTLE, PushState, Seen, Watch
from tests.support.pushes import FLEET, STRICT, FullDisk, PushDoor, push


def test_a_push_on_trial_is_in_force_and_does_not_survive_a_restart(door: PushDoor):
    settings = door.tried(push(1, STRICT))
    assert settings.decision.target_fpir == 0.0001
    assert (door.memory.report.status, door.told[-1]["status"]) == ("pending", "pending")
    assert (door.told[-1]["versions"], door.memory.version) == ({"device": 1}, 1)
    assert door.memory.settings().decision.target_fpir == 0.0001, "a reload in this time takes nothing back"
    assert door.after_restart().decision.target_fpir == 0.001, "what is on trial does not survive a restart"


def test_the_environment_stays_above_a_push_and_the_report_says_so(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGE_DECISION__MARGIN", "0.2")
    patch = {"decision": {"margin": 0.1, "min_shots": 3}, "log": {"level": "debug"}}
    settings = door.tried(push(1, patch))
    assert settings.decision.margin == 0.2
    assert door.memory.report.keys == {
        "decision.margin": "overridden by the environment",
        "decision.min_shots": "applied",
        "log.level": "needs_restart",
    }


@pytest.mark.parametrize(
    ("above", "who", "told"),
    [
        pytest.param("device", {}, "overridden by device", id="device"),
        pytest.param(
            "group:north",
            {"scope": "group", "name": "north"},
            "overridden by group:north",
            id="a group over the fleet",
        ),
    ],
)
def test_a_weaker_layer_s_report_says_which_layer_stands_above(
    door: PushDoor, above: str, who: dict[str, Any], told: str
):
    door.kept(push(1, {"decision": {"margin": 0.2}}, **who), above)
    patch = {"decision": {"margin": 0.1, "min_shots": 3}}
    settings = door.tried(push(1, patch, **FLEET), "fleet")
    assert settings.decision.margin == 0.2
    assert door.memory.report.keys == {"decision.margin": told, "decision.min_shots": "applied"}
    door.wait(10)
    for each in door.before_and_after_restart():
        assert each.trial.state is PushState.KEPT
        assert each.memory.report.keys == {"decision.margin": told, "decision.min_shots": "applied"}
    door.tried(push(2, {"decision": {"margin": 0.3}}, **who), above)
    assert door.memory.report.keys == {"decision.margin": "applied"}, "the stronger one is not"


@pytest.mark.parametrize(
    ("works", "builds", "status", "fpir"),
    [
        pytest.param(True, True, "applied", 0.0001, id="works"),
        pytest.param(False, True, "rolled_back", 0.001, id="no frame is looked at"),
        pytest.param(True, False, "rejected", 0.001, id="cannot be built"),
    ],
)
def test_a_push_stays_only_if_the_door_works_under_it(
    door: PushDoor, works: bool, builds: bool, status: str, fpir: float
):
    door.works, door.builds = works, builds
    door.trial.take("device", push(1, STRICT))
    door.builds = True
    door.wait(25)
    assert door.told[-1]["status"] == status
    assert door.in_force.decision.target_fpir == fpir


BEFORE = Seen({"front": 10, "back": 10}, {"front": 0.0}, True, ["late before"])
STEADY_S = 2.5
"""Seconds of the 10 under watch that a camera has to deliver without a break."""

FRONT = {"front": STEADY_S}


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        pytest.param(Seen({"front": 11}, FRONT, True), None, id="works"),
        pytest.param(Seen({"front": 10}, FRONT, True), "no frame of front", id="no frame"),
        pytest.param(Seen({}, {}, True), "no frame of front", id="no camera"),
        pytest.param(Seen({"front": 11, "back": 10}, FRONT, True), None, id="none before"),
        pytest.param(Seen({"front": 99}, {}, True), "front comes and goes", id="gone when it is judged"),
        pytest.param(Seen({"front": 99}, {"front": 2.4}, True), "front comes and goes", id="flaps"),
        pytest.param(Seen({"front": 11}, FRONT, False), "the broker is lost", id="no broker"),
        pytest.param(
            Seen({"front": 11}, FRONT, True, ["late before", "writer"]),
            "threads are late: writer",
            id="a thread became late",
        ),
        pytest.param(Seen({"front": 11}, FRONT, True, ["late before"]), None, id="a thread still late"),
    ],
)
def test_an_objection_is_what_worked_before(seen: Seen, says: str | None):
    watch = Watch(100.0, 10.0, BEFORE)
    objection = watch.objection(seen)
    assert objection == says if says is None else says in (objection or "")
    early_s, settled_s = 100.0 + SETTLE * 10.0 - 0.1, 100.0 + SETTLE * 10.0
    assert not watch.over(early_s, seen)
    assert watch.over(settled_s, seen) == (says is None), "what does not work yet has until the end"
    assert watch.over(110.0, seen)


@pytest.mark.parametrize(
    ("patch", "computes", "tested", "status"),
    [
        pytest.param({"recognition": {"threads": 2}}, True, 1, "applied", id="models work"),
        pytest.param({"recognition": {"threads": 2}}, False, 1, "rolled_back", id="a model does not"),
        pytest.param(STRICT, False, 0, "applied", id="nothing of recognition was pushed"),
    ],
)
def test_models_that_a_push_has_changed_are_asked_before_it_is_kept(
    door: PushDoor, patch: dict[str, Any], computes: bool, tested: int, status: str
):
    door.computes = computes
    door.trial.take("device", push(1, patch))
    door.wait(15)
    assert (door.told[-1]["status"], door.tested) == (status, tested)
    assert door.in_force.recognition.threads == (2 if status == "applied" and tested else 1)


def test_a_push_that_cannot_be_written_down_as_good_is_watched_on(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    door.trial.take("device", push(1, STRICT))
    disk = FullDisk(monkeypatch)
    door.wait(60)
    assert (door.trial.state, door.told[-1]["status"]) == (PushState.ON_TRIAL, "pending")
    disk.mend()
    door.wait(10)
    assert (door.trial.state, door.told[-1]["status"]) == (PushState.KEPT, "applied")
