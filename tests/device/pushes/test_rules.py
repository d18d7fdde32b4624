"""The rules of pushes: each is exercised, no other change of state can happen, and their example runs."""

import doctest
import itertools
import random
import re
from collections.abc import Callable

import pytest

from edge.core.metrics import Metrics
from edge.device.pushes import trial
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.trial import LINES_AT_ONCE, RULES, Push, PushState, PushTrial
from tests.support.pushes import FLEET, STRICT, FullDisk, PushDoor, content, push, unreadable

RECEIVED, CHECKED, ON_TRIAL = PushState.RECEIVED, PushState.CHECKED, PushState.ON_TRIAL
KEPT, ROLLED_BACK = PushState.KEPT, PushState.ROLLED_BACK
REJECTED, REFUSED = PushState.REJECTED, PushState.REFUSED

Change = tuple[PushState, PushState]
ALLOWED = {(was, state) for was, states in RULES.items() for state in states}


def entered(caplog: pytest.LogCaptureFixture) -> list[Change]:
    """Return every change of state that the log tells of."""
    records = [each for each in caplog.records if each.name == trial.__name__ and hasattr(each, "was")]
    return [(PushState(each.was), PushState(each.args[0])) for each in records]


def on_trial(door: PushDoor) -> None:
    door.tried(push(1, STRICT))


def fail(door: PushDoor) -> None:
    on_trial(door)
    door.works = False
    door.wait(30)


def mislead(door: PushDoor) -> None:
    """A model that a push has changed computes something else than it should."""
    door.computes = False
    door.tried(push(1, {"recognition": {"threads": 2}}))
    door.wait(30)


def supersede(door: PushDoor) -> None:
    on_trial(door)
    door.trial.take("device", push(2))
    door.trial.take("device", push(3))


def unbuildable(door: PushDoor) -> None:
    door.builds = False
    door.trial.take("device", push(1, STRICT))


def takes(data: bytes) -> Callable[[PushDoor], None]:
    return lambda door: door.trial.take("device", data)


def full(door: PushDoor) -> None:
    door.file.parent.parent.mkdir(parents=True)
    door.file.parent.write_text("a file where the directory should be")
    door.trial.take("device", push(1, STRICT))


EXERCISED: list[tuple[PushState, PushState, str, Callable[[PushDoor], object]]] = [
    (RECEIVED, CHECKED, "signed, ours and new", on_trial),
    (RECEIVED, REFUSED, "unsigned", takes(content(1))),
    (RECEIVED, REFUSED, "another device's", takes(push(1, name="other"))),
    (RECEIVED, REFUSED, "old", lambda door: (door.kept(push(2)), door.trial.take("device", push(1)))),
    (RECEIVED, REFUSED, "superseded", supersede),
    (CHECKED, ON_TRIAL, "in force", on_trial),
    (CHECKED, REJECTED, "a forbidden key", takes(push(1, {"site": "x"}))),
    (
        CHECKED,
        REJECTED,
        "a wrong value",
        takes(push(1, {"decision": {"margin": 7}})),
    ),
    (CHECKED, REJECTED, "cannot be built", unbuildable),
    (CHECKED, REJECTED, "no room for its version", full),
    (ON_TRIAL, KEPT, "the door works", lambda door: door.kept(push(1, STRICT))),
    (ON_TRIAL, ROLLED_BACK, "the door does not work", fail),
    (ON_TRIAL, ROLLED_BACK, "a model does not", mislead),
    (ON_TRIAL, ROLLED_BACK, "a restart", lambda door: (on_trial(door), door.restarted())),
]


@pytest.mark.parametrize(
    ("was", "state", "happens"),
    [
        pytest.param(was, state, happens, id=f"{was.value} to {state.value}: {why}")
        for was, state, why, happens in EXERCISED
    ],
)
def test_a_push_follows_the_rules(
    door: PushDoor,
    caplog: pytest.LogCaptureFixture,
    was: PushState,
    state: PushState,
    happens: Callable[[PushDoor], object],
):
    caplog.set_level("DEBUG", trial.__name__)
    happens(door)
    changes = entered(caplog)
    assert (was, state) in changes
    assert set(changes) <= ALLOWED


def test_every_rule_is_exercised():
    assert {(was, state) for was, state, *_ in EXERCISED} == ALLOWED


def test_the_rules_are_those_that_are_explained():
    explained = re.findall(r"([A-Z_]+) -> ([A-Z_]+):", PushTrial.__doc__ or "")
    assert {(PushState[was], PushState[state]) for was, state in explained} == ALLOWED
    assert len(explained) == len(ALLOWED)


@pytest.mark.parametrize(
    "change", [change for change in itertools.product(PushState, PushState) if change not in ALLOWED], ids=str
)
def test_no_other_change_can_happen(change: Change):
    was, state = change
    push = Push("device", b"", 1, was)
    with pytest.raises(ValueError, match=f"a push that is {was.value} cannot become {state.value}"):
        push.enter(state)
    assert push.state is was


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_no_push_breaks_a_rule(
    door: PushDoor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, seed: int
):
    """Pushes, restarts, failures and full disks in any order: what breaks a rule raises a ValueError."""
    caplog.set_level("DEBUG", trial.__name__)
    chance, versions = random.Random(seed), itertools.count(1)
    patches = [STRICT, {"decision": {"target_fpir": 0.5}}, {"decision": {"margin": 7}}, {"site": "x"}, {}]
    for _ in range(60):
        door.works, door.builds = chance.random() < 0.7, chance.random() < 0.8
        match chance.randrange(6):
            case 0:
                door.trial.take("device", push(next(versions), chance.choice(patches)))
            case 1:
                door.trial.take("fleet", push(next(versions), chance.choice(patches), **FLEET))
            case 2:
                door.trial.take("device", chance.choice([b"junk", push(1), push(1, name="other")]))
            case 3:
                with monkeypatch.context() as patch:
                    FullDisk(patch)
                    door.trial.take("device", push(next(versions), STRICT))
                    door.wait(2)
            case 4:
                with monkeypatch.context() as patch:
                    if chance.random() < 0.5:
                        patch.setattr("edge.core.files.read_bounded", unreadable)
                    door.restarted()
            case _:
                door.wait(12)
    door.works = door.builds = True
    door.wait(60)
    assert set(entered(caplog)) <= ALLOWED
    assert door.trial.state is not ON_TRIAL
    assert door.in_force == door.memory.settings() == door.restarted().in_force


def test_refusals_are_said_seldom_and_every_other_change_is_said(
    door: PushDoor, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG", trial.__name__)
    for number in range(10):
        door.trial.take("device", b"junk %d" % number)
    assert entered(caplog) == [(RECEIVED, REFUSED)] * LINES_AT_ONCE
    caplog.clear()
    door.kept(push(1, STRICT))
    assert entered(caplog) == [(RECEIVED, CHECKED), (CHECKED, ON_TRIAL), (ON_TRIAL, KEPT)]


def test_the_example_runs(door: PushDoor):
    given = {"PushMemory": PushMemory, "Metrics": Metrics, "door": door, "push": push}
    example = doctest.DocTestParser().get_doctest(
        PushTrial.__doc__ or "", {**vars(trial), **given}, "PushTrial", trial.__file__, None
    )
    assert len(example.examples) > 5
    assert doctest.DocTestRunner().run(example).failed == 0
