"""Configuration pushes: what is believed, what may be pushed, what is kept, and what is taken back."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core import files
from edge.core.errors import ConfigError, FileError, ModelIntegrityError
from edge.core.metrics import Metrics
from edge.device.pushes.desk import LINES_AT_ONCE, ConfigDesk
from edge.device.pushes.memory import effective, memory_path
from edge.device.pushes.push import PAYLOAD_TYPE, effective_hash, marks, refusals
from edge.device.pushes.trial import PushRunner, Seen
from edge.device.settings import load as config
from edge.device.settings.load import Settings
from edge.mqtt.contract.envelope import sign
from edge.mqtt.contract.messages import ConfigReportedPayload
from tests.support.clock import SteppedClock
from tests.support.pushes import KEY, OTHER_KEY, TRUSTED, content, push

STRICT = {"decision": {"target_fpir": 0.0001}}


class Door:
    """A device's edge.toml and its desk."""

    def __init__(self, directory: Path, *lines: str, trusted: str = TRUSTED) -> None:
        self.path = directory / "edge.toml"
        self.path.write_text(
            "\n".join(
                [
                    'site = "test"',
                    'device = "door"',
                    f'state_dir = "{directory}/state"',
                    f'push.trusted_keys = ["{trusted}"]' if trusted else "",
                    'push.groups = ["entrances", "north"]',
                    *lines,
                ]
            )
        )
        self.metrics = Metrics()
        self.desk = ConfigDesk(self.read, self.metrics, SteppedClock())

    def read(self, patch: dict[str, Any]) -> Settings:
        return config.load(self.path, patch)

    def restarted(self) -> ConfigDesk:
        desk = ConfigDesk(self.read, self.metrics, SteppedClock())
        desk.recover()
        return desk

    def in_force(self) -> Settings:
        return effective(self.read({}), self.read)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def unbelieved(door: Door) -> str:
    assert door.desk.unbelieved is not None
    return door.desk.unbelieved.error


def taken(door: Door, data: bytes, layer: str = "device") -> Settings:
    settings = door.desk.take(layer, data)
    assert settings is not None, (door.desk.report, door.desk.unbelieved)
    return settings


def test_a_push_is_tried_then_kept_and_survives_a_restart(door: Door):
    settings = taken(door, push(1, STRICT))
    assert settings.decision.target_fpir == 0.0001
    assert (door.desk.report.status, door.desk.trying) == ("pending", True)
    assert door.in_force().decision.target_fpir == 0.001, "what is tried does not survive a restart"
    door.desk.keep()
    told = door.desk.told(settings)
    assert (told["status"], told["version"], told["versions"]) == ("applied", 1, {"device": 1})
    assert told["keys"] == {"decision.target_fpir": "applied"}
    assert door.in_force().decision.target_fpir == 0.0001
    assert door.restarted().report.status == "applied"


def test_a_restart_while_it_is_tried_takes_it_back_for_good(door: Door):
    taken(door, push(1, STRICT))
    again = door.restarted()
    assert (again.report.status, again.report.version, again.versions) == ("rolled_back", 1, {})
    assert again.take("device", push(1, STRICT)) is None, "the same push does not come back"
    assert again.take("device", push(2, STRICT)) is not None


def test_what_is_taken_back_leaves_the_last_good(door: Door):
    taken(door, push(1, STRICT))
    door.desk.keep()
    taken(door, push(2, {"decision": {"target_fpir": 0.5}}))
    door.desk.drop("no frame")
    assert door.desk.settings().decision.target_fpir == 0.0001
    assert (door.desk.report.status, door.desk.report.error) == ("rolled_back", "no frame")
    assert door.desk.versions == {"device": 1}
    assert door.metrics.counts()["config.rolled_back"] == 1


def test_layers_lie_one_over_the_other(door: Door):
    layers = [
        ("fleet", {"scope": "fleet", "name": None}, {"decision": {"min_shots": 3, "max_shots": 9}}),
        ("group:entrances", {"scope": "group", "name": "entrances"}, {"decision": {"min_shots": 4}}),
        ("group:north", {"scope": "group", "name": "north"}, {"decision": {"margin": 0.1}}),
        ("device", {}, {"decision": {"min_shots": 5}}),
    ]
    for layer, who, patch in reversed(layers):
        taken(door, push(1, patch, **who), layer)
        door.desk.keep()
    values = door.in_force().decision
    assert (values.min_shots, values.max_shots, values.margin) == (5, 9, 0.1)
    taken(door, push(2), "device")
    door.desk.keep()
    assert door.in_force().decision.min_shots == 4, "an empty patch takes its layer back"
    assert door.desk.version == 2


def test_the_environment_stays_above_a_push_and_the_report_says_so(
    door: Door, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGE_DECISION__MARGIN", "0.2")
    settings = taken(door, push(1, {"decision": {"margin": 0.1, "min_shots": 3}, "log": {"level": "debug"}}))
    assert settings.decision.margin == 0.2
    assert door.desk.report.keys == {
        "decision.margin": "overridden by the environment",
        "decision.min_shots": "applied",
        "log.level": "needs_restart",
    }


def test_while_one_is_tried_the_next_waits(door: Door):
    taken(door, push(1, STRICT))
    assert door.desk.take("device", push(2)) is None
    assert door.desk.take("device", push(3)) is None
    assert door.desk.report.version == 1
    assert door.desk.take("device", b"junk") is None
    assert refusals_counted(door) == {
        "config.refused": 2,
        "config.refused.superseded": 1,
        "config.refused.no_envelope": 1,
    }
    door.desk.keep()
    [(layer, data)] = door.desk.resume()
    taken(door, data, layer)
    assert door.desk.report.version == 3


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


NOT_BELIEVED = [
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
]
REJECTED = [
    pytest.param(
        lambda: push(1, {"decision": {"margin": 7}}), "decision.margin", "settings", id="out of range"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"margin": "wide"}}), "decision.margin", "settings", id="wrong type"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"min_shots": 20}}), "max_shots", "settings", id="inconsistent"
    ),
    pytest.param(lambda: push(1, {"decision": 7}), "cannot be pushed", "keys", id="a table that is a number"),
    pytest.param(
        lambda: push(1, {"decisions": {"margin": 0.1}}), "cannot be pushed", "keys", id="unknown table"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"margins": 0.1}}), "cannot be pushed", "keys", id="unknown key"
    ),
]


@pytest.mark.parametrize(("attack", "says", "reason"), NOT_BELIEVED)
def test_what_is_not_believed_is_refused_for_one_reason_and_changes_no_report(
    door: Door, attack: Callable[[], bytes], says: str, reason: str
):
    taken(door, push(1, STRICT, scope="fleet", name=None), "fleet")
    door.desk.keep()
    before, data = door.desk.report, attack()
    assert door.desk.take("device", data) is None
    assert door.desk.report is before, "what anybody can send takes no report away"
    refused = door.desk.told(door.in_force())["refused"]
    assert any(part in refused["error"] for part in says.split("|")), refused
    assert refused["error"].isprintable()
    assert (refused["layer"], refused["reason"], refused["count"]) == ("device", reason, 1)
    assert refused["sha256"] == hashlib.sha256(data).hexdigest()
    assert door.in_force().decision.target_fpir == 0.0001
    assert refusals_counted(door) == {"config.refused": 1, f"config.refused.{reason}": 1}
    ConfigReportedPayload(at=SteppedClock().now(), **door.desk.told(door.in_force()))


@pytest.mark.parametrize(("attack", "says", "reason"), REJECTED)
def test_what_cannot_be_put_in_force_is_rejected_also_after_a_restart(
    door: Door, attack: Callable[[], bytes], says: str, reason: str
):
    taken(door, push(1, STRICT, scope="fleet", name=None), "fleet")
    door.desk.keep()
    assert door.desk.take("device", attack()) is None
    for desk in (door.desk, door.restarted()):
        assert (desk.report.status, desk.report.layer, desk.report.version) == ("rejected", "device", 1)
        assert says in (desk.report.error or "")
        assert not desk.trying
    assert door.in_force().decision.target_fpir == 0.0001
    assert refusals_counted(door) == {"config.refused": 1, f"config.refused.{reason}": 1}


def refusals_counted(door: Door) -> dict[str, int]:
    return {key: count for key, count in door.metrics.counts().items() if "refused" in key}


def test_what_was_taken_back_is_told_after_a_restart(door: Door):
    taken(door, push(1, STRICT))
    door.desk.drop("no frame of front was looked at")
    again = door.restarted().report
    assert (again.status, again.version, again.error) == (
        "rolled_back",
        1,
        "no frame of front was looked at",
    )
    desk = door.restarted()
    assert desk.take("device", push(2, STRICT)) is not None
    desk.drop("no such model", rejected=True)
    assert (door.restarted().report.status, door.restarted().report.error) == ("rejected", "no such model")


def test_a_restart_applies_what_needed_one(door: Door):
    taken(door, push(1, {"log": {"level": "debug"}}))
    door.desk.keep()
    assert door.desk.report.keys == {"log.level": "needs_restart"}
    assert door.restarted().report.keys == {"log.level": "applied"}


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
    door: Door, above: str, who: dict[str, Any], told: str
):
    taken(door, push(1, {"decision": {"margin": 0.2}}, **who), above)
    door.desk.keep()
    patch = {"decision": {"margin": 0.1, "min_shots": 3}}
    settings = taken(door, push(1, patch, scope="fleet", name=None), "fleet")
    assert settings.decision.margin == 0.2
    assert door.desk.report.keys == {"decision.margin": told, "decision.min_shots": "applied"}
    door.desk.keep()
    for desk in (door.desk, door.restarted()):
        assert desk.report.keys == {"decision.margin": told, "decision.min_shots": "applied"}
    taken(door, push(2, {"decision": {"margin": 0.3}}, **who), above)
    assert door.desk.report.keys == {"decision.margin": "applied"}, "the stronger one is not"


def test_the_groups_that_a_device_listens_to_are_those_it_started_with(door: Door):
    door.path.write_text(door.path.read_text().replace('"north"', '"south"'))
    told = door.desk.told(door.desk.settings())
    assert told["groups"] == ["entrances", "north"]
    assert door.desk.take("group:south", push(1, scope="group", name="south")) is None
    assert "not in" in unbelieved(door)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        pytest.param(push(4), "higher version", id="lower version"),
        pytest.param(push(5, {"decision": {"margin": 0.1}}), "another content", id="same version"),
    ],
)
def test_nothing_older_comes_back(door: Door, second: bytes, says: str):
    taken(door, push(5, STRICT))
    door.desk.keep()
    for desk in (door.desk, door.restarted()):
        assert desk.take("device", second) is None
        assert desk.unbelieved is not None
        assert says in desk.unbelieved.error
        assert (desk.report.status, desk.report.version) == ("applied", 5)
        assert desk.take("device", push(5, STRICT)) is None, "the same again is no news"


def test_the_version_of_a_refused_push_is_spent_before_it_is_read(door: Door):
    assert door.desk.take("device", push(5, {"decision": {"margin": 7}})) is None
    assert door.desk.take("device", push(5, STRICT)) is None
    assert "version 5" in unbelieved(door)
    assert door.desk.take("device", push(6, STRICT)) is not None


def test_a_group_that_the_device_left_is_not_listened_to(tmp_path: Path):
    door = Door(tmp_path)
    assert door.desk.take("group:south", push(1, scope="group", name="south")) is None
    assert "not in" in unbelieved(door)


def test_without_a_trusted_key_pushes_are_refused_and_old_ones_do_not_count(tmp_path: Path):
    door = Door(tmp_path)
    taken(door, push(1, STRICT))
    door.desk.keep()
    distrusting = Door(tmp_path, trusted="")
    assert distrusting.desk.take("device", push(2, STRICT)) is None
    assert "no key is trusted" in unbelieved(distrusting)
    assert distrusting.in_force().decision.target_fpir == 0.001
    assert distrusting.desk.settings().decision.target_fpir == 0.001


NEVER = [key for key, mark in marks().items() if mark == "never"]


@pytest.mark.parametrize("key", NEVER)
def test_what_may_never_be_pushed_is_refused_whatever_its_value(door: Door, key: str):
    section, _, name = key.rpartition(".")
    patch = {section: {name: "x"}} if section else {name: "x"}
    assert door.desk.take("device", push(1, patch)) is None
    assert list(door.desk.report.keys or ()) == [key]
    assert "edge.toml" in (door.desk.report.keys or {})[key]


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"cameras": {"front": {"command": ["sh", "-c", "id"]}}}, id="a program"),
        pytest.param({"cameras": {"new": {"source": "/etc/passwd"}}}, id="a file"),
        pytest.param({"cameras": {}}, id="no camera"),
    ],
)
def test_cameras_are_never_pushed(door: Door, patch: dict[str, Any]):
    assert refusals(patch, door.read({})).keys() == {"cameras"}


def test_privacy_is_only_made_stricter(tmp_path: Path):
    open_door = Door(tmp_path)
    assert refusals({"privacy": {"anonymous": True}}, open_door.read({})) == {}
    (tmp_path / "strict").mkdir()
    strict = Door(tmp_path / "strict", "privacy.anonymous = true")
    assert "stricter" in refusals({"privacy": {"anonymous": False}}, strict.read({}))["privacy.anonymous"]
    assert refusals({"privacy": {"anonymous": True}}, strict.read({})) == {}


def test_strangers_are_only_kept_for_less_time_than_the_device_says(tmp_path: Path):
    door = Door(tmp_path, "strangers.keep_hours = 24")
    assert refusals({"strangers": {"keep_hours": 12}}, door.read({})) == {}
    assert refusals({"strangers": {"keep_hours": 48}}, door.read({})).keys() == {"strangers.keep_hours"}
    assert refusals({"strangers": {"keep_hours": "no"}}, door.read({})).keys() == {"strangers.keep_hours"}


def test_what_may_be_pushed_is_chosen_and_not_forgotten():
    """A new setting is `never` until somebody marks it, and shows up here when somebody does."""
    allowed = {key: mark for key, mark in marks().items() if mark != "never"}
    assert {mark for mark in allowed.values()} == {"live", "restart", "stricter"}
    sections = {key.partition(".")[0] for key in allowed}
    assert sections == {
        *("access", "capture", "decision", "gallery", "homeassistant", "liveness", "log", "mqtt", "outbox"),
        *("privacy", "recognition", "remote", "strangers", "sync"),
    }
    assert {key for key, mark in allowed.items() if mark != "live"} == {
        *("log.level", "mqtt.backoff_max_s", "mqtt.keepalive_s", "privacy.anonymous"),
        *("outbox.delivery", "outbox.max_mb", "outbox.max_rows", "strangers.keep_hours"),
        "homeassistant.discovery",
    }
    risky = ("file", "path", "_dir", "_key", "url", "secret", "source", "command", "host")
    assert not [key for key in allowed if any(word in key for word in risky)]


def test_a_damaged_memory_is_not_taken_for_none(door: Door):
    taken(door, push(5, STRICT))
    door.desk.keep()
    path = memory_path(door.read({}))
    path.write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        ConfigDesk(door.read, Metrics())
    with pytest.raises(ConfigError, match="damaged"):
        door.in_force()


def test_a_file_that_no_longer_goes_with_the_pushes_stands_alone(
    door: Door, caplog: pytest.LogCaptureFixture
):
    taken(door, push(1, {"decision": {"max_shots": 2}}))
    door.desk.keep()
    door.path.write_text(door.path.read_text() + "\ndecision.min_shots = 4\n")
    settings = door.in_force()
    assert (settings.decision.min_shots, settings.decision.max_shots) == (4, 6)
    assert "stands alone" in caplog.text


def test_a_full_disk_refuses_the_push_and_changes_nothing(door: Door, monkeypatch: pytest.MonkeyPatch):
    state = memory_path(door.read({})).parent
    state.parent.mkdir(parents=True)
    state.write_text("a file where the directory should be")
    assert door.desk.take("device", push(1, STRICT)) is None
    assert "cannot be made" in (door.desk.report.error or "")
    assert not door.desk.trying


def test_a_flood_of_junk_is_counted_exactly_but_told_and_written_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    driver = Driver(Door(tmp_path))
    taken(driver.door, push(1, STRICT))
    driver.door.desk.keep()
    driver.runner.tell()
    for number in range(1000):
        driver.clock.now_s = 0.001 * number
        driver.runner.take("device", b"junk %d" % number)
        driver.runner.tick()
    assert len(driver.told) == 1
    driver.clock.now_s = 1.0
    driver.runner.tick()
    told = driver.told[-1]
    assert (len(driver.told), told["status"], told["version"]) == (2, "applied", 1)
    assert (told["refused"]["count"], told["refused"]["reason"]) == (1000, "no_envelope")
    assert len(caplog.records) == LINES_AT_ONCE
    driver.runner.take("device", push(1, STRICT))
    assert len(driver.told) == 2, "a push that is played again is no news"


class Driver:
    """A runner over a desk, with a door that works or does not."""

    def __init__(self, door: Door) -> None:
        self.door, self.clock, self.works, self.builds = door, SteppedClock(), True, True
        self.in_force = door.read({})
        self.told: list[dict[str, Any]] = []
        self.computes, self.tested = True, 0
        self.runner = PushRunner(
            door.desk,
            apply=self.apply,
            settings=lambda: self.in_force,
            seen=self.seen,
            self_test=self.self_test,
            publish=self.told.append,
            clock=self.clock,
        )

    def apply(self, settings: Settings) -> None:
        if not self.builds:
            raise ConfigError("no such model")
        self.in_force = settings

    def self_test(self) -> None:
        self.tested += 1
        if not self.computes:
            raise ModelIntegrityError("sface-int8: self-test failed")

    def seen(self) -> Seen:
        frames = int(self.clock.now_s * 25) if self.works else 0
        return Seen({"front": frames}, frozenset({"front"}), True)


@pytest.mark.parametrize(
    ("works", "builds", "status", "fpir"),
    [
        pytest.param(True, True, "applied", 0.0001, id="works"),
        pytest.param(False, True, "rolled_back", 0.001, id="no frame is looked at"),
        pytest.param(True, False, "rejected", 0.001, id="cannot be built"),
    ],
)
def test_a_push_stays_only_if_the_door_works_under_it(
    tmp_path: Path, works: bool, builds: bool, status: str, fpir: float
):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.works, driver.builds = works, builds
    driver.runner.take("device", push(1, STRICT))
    driver.builds = True
    for _ in range(100):
        driver.clock.now_s += 0.25
        driver.runner.tick()
    assert driver.told[-1]["status"] == status
    assert driver.in_force.decision.target_fpir == fpir


def test_a_disk_that_fails_while_a_push_is_refused_does_not_end_the_daemon(tmp_path: Path):
    driver = Driver(Door(tmp_path))
    taken(driver.door, push(1))
    driver.door.desk.keep()

    def fail(settings: Settings) -> None:
        state = memory_path(settings).parent
        shutil.rmtree(state)
        state.write_text("a file")
        raise ConfigError("no such model")

    driver.runner._apply = fail
    driver.runner.take("device", push(2, STRICT))
    assert driver.in_force.decision.target_fpir == 0.001


class FullDisk:
    """Refuses what is written about pushes until it is `mended`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.write = monkeypatch, files.write_whole
        monkeypatch.setattr("edge.core.files.write_whole", self.refuse)

    def refuse(self, path: Path, data: bytes, mode: int = 0) -> None:
        raise FileError(f"{path}: cannot be written: No space left on device")

    def mend(self) -> None:
        self.monkeypatch.setattr("edge.core.files.write_whole", self.write)


def ticked(driver: Driver, seconds: float) -> None:
    for _ in range(int(seconds / 0.25)):
        driver.clock.now_s += 0.25
        driver.runner.tick()


def test_a_push_that_fails_on_a_full_disk_is_taken_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.runner.take("device", push(1, STRICT))
    driver.works, disk = False, FullDisk(monkeypatch)
    ticked(driver, 60)
    assert driver.in_force.decision.target_fpir == 0.001
    assert (driver.told[-1]["status"], driver.told[-1]["error"]) == (
        "rolled_back",
        "no frame of front was looked at",
    )
    assert sum("cannot be written" in each.message for each in caplog.records) < 4
    assert driver.door.in_force().decision.target_fpir == 0.001, "a restart now would not bring it back"
    disk.mend()
    driver.works = True
    driver.runner.take("device", push(2, STRICT))
    ticked(driver, 15)
    assert (driver.told[-1]["status"], driver.door.desk.versions) == ("applied", {"device": 2})


def test_the_end_of_a_trial_is_written_when_the_disk_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.runner.take("device", push(1, STRICT))
    driver.works, disk = False, FullDisk(monkeypatch)
    ticked(driver, 20)
    disk.mend()
    ticked(driver, 10)
    assert not ConfigDesk(driver.door.read, Metrics()).trying


def test_a_push_that_cannot_be_written_down_as_good_is_watched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.runner.take("device", push(1, STRICT))
    disk = FullDisk(monkeypatch)
    ticked(driver, 60)
    assert (driver.door.desk.trying, driver.told[-1]["status"]) == (True, "pending")
    disk.mend()
    ticked(driver, 10)
    assert (driver.door.desk.trying, driver.told[-1]["status"]) == (False, "applied")


def test_a_way_back_that_cannot_be_built_is_tried_again(tmp_path: Path):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.runner.take("device", push(1, STRICT))
    driver.works = driver.builds = False
    ticked(driver, 30)
    assert driver.in_force.decision.target_fpir == 0.0001
    driver.builds = True
    ticked(driver, 10)
    assert driver.in_force.decision.target_fpir == 0.001
    assert driver.told[-1]["status"] == "rolled_back"


def test_a_way_back_is_found_without_edge_toml(tmp_path: Path):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.runner.take("device", push(1, STRICT))
    driver.works = False
    driver.door.path.write_text("nonsense")
    ticked(driver, 30)
    assert driver.in_force.decision.target_fpir == 0.001


def test_a_door_starts_on_a_full_disk_after_a_push_was_tried(door: Door, monkeypatch: pytest.MonkeyPatch):
    taken(door, push(1, STRICT))
    FullDisk(monkeypatch)
    again = door.restarted()
    assert (again.report.status, again.trying) == ("rolled_back", False)


@pytest.mark.parametrize(
    ("patch", "computes", "tested", "status"),
    [
        pytest.param({"recognition": {"threads": 2}}, True, 1, "applied", id="models work"),
        pytest.param({"recognition": {"threads": 2}}, False, 1, "rolled_back", id="a model does not"),
        pytest.param(STRICT, False, 0, "applied", id="nothing of recognition was pushed"),
    ],
)
def test_models_that_a_push_has_changed_are_asked_before_it_is_kept(
    tmp_path: Path, patch: dict[str, Any], computes: bool, tested: int, status: str
):
    driver = Driver(Door(tmp_path, "push.probation_s = 10"))
    driver.computes = computes
    driver.runner.take("device", push(1, patch))
    ticked(driver, 15)
    assert (driver.told[-1]["status"], driver.tested) == (status, tested)
    assert driver.in_force.recognition.threads == (2 if status == "applied" and tested else 1)


def unreadable(path: Path, max_bytes: int) -> bytes | None:
    raise FileError(f"{path}: cannot be read: Input/output error")


def test_a_memory_that_cannot_be_read_refuses_pushes_and_keeps_no_door_shut(
    door: Door, monkeypatch: pytest.MonkeyPatch
):
    taken(door, push(5, STRICT))
    door.desk.keep()

    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.read_bounded", unreadable)
        again = door.restarted()
        assert again.take("device", push(6)) is None
        assert again.unbelieved is not None
        assert "not known" in again.unbelieved.error
    assert again.take("device", push(4)) is None, "old pushes are not let in"
    assert "came before" in again.unbelieved.error
    assert (again.report.status, again.report.version) == ("applied", 5)
    assert again.versions == {"device": 5}
    assert again.settings().decision.target_fpir == 0.0001
    assert again.take("device", push(6)) is not None


class Blind(Driver):
    """A door that started while the disk did not give what was pushed before: version 5, kept."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, read: bool = False) -> None:
        door = Door(directory, "push.probation_s = 10")
        taken(door, push(5, STRICT))
        door.desk.keep()
        with monkeypatch.context() as patch:
            if not read:
                patch.setattr("edge.core.files.read_bounded", unreadable)
            door.desk = door.restarted()
            super().__init__(door)
            self.runner.tell()
            ticked(self, 60)

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
def test_what_was_pushed_before_is_put_in_force_when_the_disk_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: bytes | None
):
    driver = Blind(tmp_path, monkeypatch)
    if message is None:
        ticked(driver, 10)
    else:
        driver.runner.take("device", message)
    assert driver.shown == GOOD
    told = len(driver.told)
    ticked(driver, 30)
    assert driver.shown == GOOD
    assert len(driver.told) <= told + 1, "at most what was refused is told beside"


def test_a_reload_reads_what_was_pushed_before_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = Blind(tmp_path, monkeypatch)
    driver.apply(driver.door.desk.settings())
    driver.runner.tell()
    assert driver.shown == GOOD


def test_what_was_pushed_before_and_cannot_be_built_yet_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    driver = Blind(tmp_path, monkeypatch)
    driver.builds, before = False, len(driver.told)
    driver.runner.take("device", b"junk")
    ticked(driver, 20)
    assert len(driver.told) == before, "nothing is said to be applied"
    driver.builds = True
    ticked(driver, 10)
    assert driver.shown == GOOD


def test_what_only_one_of_two_readers_was_given_is_put_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert Blind(tmp_path, monkeypatch, read=True).shown == GOOD


def test_a_new_push_is_tried_over_what_was_pushed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = Blind(tmp_path, monkeypatch)
    driver.runner.take("device", push(6, {"decision": {"target_fpir": 0.5}}))
    assert driver.in_force.decision.target_fpir == 0.5
    driver.works = False
    ticked(driver, 30)
    assert driver.shown == ("rolled_back", "{'device': 5}", 0.0001)


def test_a_memory_found_damaged_later_refuses_pushes_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    driver = Blind(tmp_path, monkeypatch)
    memory_path(driver.in_force).write_text("{")
    for version in (6, 7):
        driver.runner.take("device", push(version))
        ticked(driver, 30)
    assert "damaged" in unbelieved(driver.door)
    assert driver.told[-1]["refused"]["reason"] == "memory"
    lines = [each.getMessage() for each in caplog.records if "stands alone" in each.getMessage()]
    assert len(lines) == 2, lines
