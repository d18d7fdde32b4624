"""Pushes that are received: what is refused and why, what is passed over, and what waits."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.device.pushes.push import PAYLOAD_TYPE
from edge.device.pushes.trial import LINES_AT_ONCE, PushState
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import ConfigReportedPayload
from tests.support.pushes import FLEET, KEY, OTHER_KEY, STRICT, PushDoor, content, push


def deep() -> bytes:
    return sign(content(1)[:-3] + b'{"a":' * 5000 + b"1" + b"}" * 5001 + b"}", PAYLOAD_TYPE, [KEY])


def twice() -> bytes:
    text = content(1, STRICT).replace(b'"version": 1', b'"version": 9, "version": 1')
    return sign(text, PAYLOAD_TYPE, [KEY])


def tampered() -> bytes:
    envelope = json.loads(push(1, STRICT))
    envelope["payload"] = json.loads(push(1, {"decision": {"target_fpir": 0.9}}))["payload"]
    return json.dumps(envelope).encode()


def one_of_two_bad() -> bytes:
    first, second = (json.loads(sign(content(1), PAYLOAD_TYPE, [KEY])) for _ in range(2))
    second["signatures"] = json.loads(sign(content(2), PAYLOAD_TYPE, [KEY]))["signatures"]
    first["signatures"] = [
        json.loads(sign(content(1), PAYLOAD_TYPE, [OTHER_KEY]))["signatures"][0],
        second["signatures"][0],
    ]
    return json.dumps(first).encode()


REFUSED = [
    pytest.param(lambda: b"", "empty", "empty", id="empty"),
    pytest.param(lambda: content(1, STRICT), "envelope", "no_envelope", id="unsigned"),
    pytest.param(
        lambda: sign(content(1, STRICT), PAYLOAD_TYPE, []), "not signed", "untrusted_key", id="no signature"
    ),
    pytest.param(
        lambda: sign(content(1, STRICT), PAYLOAD_TYPE, [OTHER_KEY]),
        "not signed",
        "untrusted_key",
        id="wrong key",
    ),
    pytest.param(
        lambda: sign(content(1), "application/vnd.edge.command+json", [KEY]),
        "another purpose",
        "purpose",
        id="a command",
    ),
    pytest.param(tampered, "does not fit", "signature", id="altered"),
    pytest.param(one_of_two_bad, "does not fit", "signature", id="two signatures, the trusted one bad"),
    pytest.param(lambda: push(1, name="other"), "another site", "addressee", id="other device"),
    pytest.param(lambda: push(1, site="other"), "another site", "addressee", id="other site"),
    pytest.param(lambda: push(1, scope="fleet", name=None), "another site", "addressee", id="fleet's here"),
    pytest.param(
        lambda: push(1, scope="group", name="entrances"), "another site", "addressee", id="group's here"
    ),
    pytest.param(lambda: push(1, scope="world"), "scope", "content", id="unknown scope"),
    pytest.param(lambda: push(1, name=None), "is named", "content", id="nameless"),
    pytest.param(lambda: push(0), "version", "content", id="version 0"),
    pytest.param(lambda: push(2**53), "version", "content", id="version beyond all numbers"),
    pytest.param(lambda: push("7"), "version", "content", id="version as text"),
    pytest.param(lambda: push(1.0), "version", "content", id="version as a float"),
    pytest.param(lambda: push(True), "version", "content", id="version true"),
    pytest.param(lambda: push(1, patch=[]), "patch", "content", id="patch that is a list"),
    pytest.param(lambda: push(1, more=1), "more", "content", id="unknown key beside"),
    pytest.param(lambda: push(1, schema="edge.config-desired/2"), "schema", "content", id="newer schema"),
    pytest.param(lambda: sign(b"\xff\xfe", PAYLOAD_TYPE, [KEY]), "no JSON", "content", id="not UTF-8"),
    pytest.param(lambda: sign(b"[]", PAYLOAD_TYPE, [KEY]), "no JSON object", "content", id="a list"),
    pytest.param(deep, "deeply|envelope|JSON", "content", id="deep JSON"),
    pytest.param(twice, "twice", "content", id="a key twice"),
    pytest.param(
        lambda: sign(content(1).replace(b"{}", b'{"decision":{"margin":NaN}}'), PAYLOAD_TYPE, [KEY]),
        "not a number",
        "content",
        id="NaN",
    ),
    pytest.param(lambda: push(1, {"x": "y" * 65536}), "bytes are more", "too_large", id="64 KiB and more"),
    pytest.param(
        lambda: push(1, {"a\ud800": {"x": 1}}), "half a character", "content", id="half a character in a key"
    ),
    pytest.param(lambda: push(1, name="door\udc00"), "half a character", "content", id="and in a value"),
    pytest.param(
        lambda: sign(content(1).replace(b"{}", b'{"a\xed\xa0\x80":{}}'), PAYLOAD_TYPE, [KEY]),
        "no JSON",
        "content",
        id="and as bytes",
    ),
]


@pytest.mark.parametrize(("attack", "says", "reason"), REFUSED)
def test_what_is_no_push_for_this_device_is_refused_for_one_reason_and_changes_no_report(
    door: PushDoor, attack: Callable[[], bytes], says: str, reason: str
):
    door.kept(push(1, STRICT, **FLEET), "fleet")
    before, data = door.memory.report, attack()
    door.trial.take("device", data)
    assert door.memory.report is before, "what anybody can send takes no report away"
    assert door.trial.state is PushState.KEPT
    door.trial.tell()
    refused = door.told[-1]["refused"]
    assert any(part in refused["error"] for part in says.split("|")), refused
    assert refused["error"].isprintable()
    assert (refused["layer"], refused["reason"], refused["count"]) == ("device", reason, 1)
    assert refused["sha256"] == hashlib.sha256(data).hexdigest()
    assert door.in_force.decision.target_fpir == 0.0001
    assert door.after_restart().decision.target_fpir == 0.0001
    assert door.refusals == {"config.refused": 1, f"config.refused.{reason}": 1}
    ConfigReportedPayload(at=door.clock.now(), **door.told[-1])


def test_while_one_is_on_trial_the_next_waits(door: PushDoor):
    door.tried(push(1, STRICT))
    door.trial.take("device", push(2))
    door.trial.take("device", push(3))
    assert (door.memory.report.version, door.trial.state) == (1, PushState.ON_TRIAL)
    door.trial.take("device", b"junk")
    assert door.refusals == {
        "config.refused": 2,
        "config.refused.superseded": 1,
        "config.refused.no_envelope": 1,
    }
    door.wait(5)
    assert [told["version"] for told in door.told if told["status"] == "applied"] == [1]
    assert (door.memory.report.version, door.trial.state) == (3, PushState.ON_TRIAL)


def test_those_of_two_layers_both_wait(door: PushDoor):
    door.tried(push(1, STRICT))
    door.trial.take("device", push(2))
    door.trial.take("fleet", push(7, **FLEET))
    door.wait(15)
    assert door.memory.versions == {"device": 2, "fleet": 7}
    assert door.trial.state is PushState.KEPT
    assert door.refusals == {}


def test_one_that_waits_is_checked_again(door: PushDoor):
    door.tried(push(1, STRICT))
    door.trial.take("device", push(2))
    door.path.write_text(door.path.read_text().replace("push.trusted_keys", "# push.trusted_keys"))
    door.memory.settings()
    door.wait(5)
    assert "no key is trusted" in door.refused


@pytest.mark.parametrize(
    ("second", "says"),
    [
        pytest.param(push(4), "higher version", id="lower version"),
        pytest.param(push(5, {"decision": {"margin": 0.1}}), "another content", id="same version"),
    ],
)
def test_nothing_older_comes_back(door: PushDoor, second: bytes, says: str):
    door.kept(push(5, STRICT))
    for each in door.before_and_after_restart():
        each.trial.take("device", second)
        assert says in each.refused
        assert (each.memory.report.status, each.memory.report.version) == ("applied", 5)
        refusals = each.trial.refusals
        each.trial.take("device", push(5, STRICT))
        assert each.trial.state is PushState.KEPT, "the same again is no news"
        assert each.trial.refusals == refusals


def test_the_groups_that_a_device_listens_to_are_those_it_started_with(door: PushDoor):
    door.path.write_text(door.path.read_text().replace('"north"', '"south"'))
    door.apply(door.memory.settings())
    door.trial.tell()
    assert door.told[-1]["groups"] == ["entrances", "north"]
    door.trial.take("group:south", push(1, scope="group", name="south"))
    assert door.trial.state is None
    assert "not in" in door.refused


def test_a_group_that_the_device_left_is_not_listened_to(door: PushDoor):
    door.trial.take("group:south", push(1, scope="group", name="south"))
    assert door.trial.state is None
    assert "not in" in door.refused


def test_without_a_trusted_key_pushes_are_refused_and_old_ones_do_not_count(door: PushDoor, tmp_path: Path):
    door.kept(push(1, STRICT))
    distrusting = PushDoor(tmp_path, trusted="")
    before = distrusting.memory.report
    distrusting.trial.take("device", push(2, STRICT))
    assert distrusting.memory.report is before
    assert "no key is trusted" in distrusting.refused
    assert distrusting.after_restart().decision.target_fpir == 0.001
    assert distrusting.memory.settings().decision.target_fpir == 0.001
    assert (distrusting.memory.versions, distrusting.memory.version) == ({}, None)


def test_a_flood_of_junk_is_counted_exactly_but_told_and_written_seldom(
    door: PushDoor, caplog: pytest.LogCaptureFixture
):
    door.kept(push(1, STRICT))
    door.trial.tell()
    began_s, began = door.clock.now_s, len(door.told)
    for number in range(1000):
        door.clock.now_s = began_s + 0.001 * number
        door.trial.take("device", b"junk %d" % number)
        door.trial.tick()
    assert len(door.told) == began
    door.clock.now_s = began_s + 1.0
    door.trial.tick()
    told = door.told[-1]
    assert (len(door.told), told["status"], told["version"]) == (began + 1, "applied", 1)
    assert (told["refused"]["count"], told["refused"]["reason"]) == (1000, "no_envelope")
    assert len(caplog.records) == LINES_AT_ONCE
    door.trial.take("device", push(1, STRICT))
    assert len(door.told) == began + 1, "a push that is played again is no news"


@pytest.mark.parametrize("fails", ["checked", "refusals"])
def test_what_nobody_thought_of_is_reported_and_raised(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch, fails: str
):
    def fail(*_: object) -> None:
        raise RuntimeError("nobody thought of it")

    monkeypatch.setattr(f"edge.device.pushes.trial.{fails}", fail)
    with pytest.raises(RuntimeError):
        door.trial.take("device", push(1, STRICT))
    told = door.told[-1]
    where = told if fails == "refusals" else told["refused"]
    assert "nobody thought of" in where["error"]
    assert door.refusals == {"config.refused": 1, "config.refused.other": 1}
    ConfigReportedPayload(at=door.clock.now(), **told)
    monkeypatch.undo()
    door.kept(push(2, STRICT))
