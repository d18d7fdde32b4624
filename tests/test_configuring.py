"""Configuration pushes: what is believed, what may be pushed, what is kept, and what is taken back."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge import config, safefile
from edge.config import Settings
from edge.configuring import ConfigDesk, effective, memory_path
from edge.envelope import sign
from edge.errors import ConfigError, FileError
from edge.metrics import Metrics
from edge.probation import Seen
from edge.pushing import PushRunner
from edge.twin import PAYLOAD_TYPE, marks, refusals
from tests.pushes import KEY, OTHER_KEY, TRUSTED, content, push

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
        self.desk = ConfigDesk(self.read, self.metrics)

    def read(self, patch: dict[str, Any]) -> Settings:
        return config.load(self.path, patch)

    def restarted(self) -> ConfigDesk:
        desk = ConfigDesk(self.read, self.metrics)
        desk.recover()
        return desk

    def in_force(self) -> Settings:
        return effective(self.read({}), self.read)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def taken(door: Door, data: bytes, layer: str = "device") -> Settings:
    settings = door.desk.take(layer, data)
    assert settings is not None, door.desk.report.error
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
        "decision.margin": "overridden",
        "decision.min_shots": "applied",
        "log.level": "needs_restart",
    }


def test_while_one_is_tried_the_next_waits(door: Door):
    taken(door, push(1, STRICT))
    assert door.desk.take("device", push(2)) is None
    assert door.desk.take("device", push(3)) is None
    assert door.desk.report.version == 1
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


ATTACKS = [
    pytest.param(lambda: b"", "envelope", id="empty"),
    pytest.param(lambda: content(1, STRICT), "envelope", id="unsigned"),
    pytest.param(lambda: sign(content(1, STRICT), PAYLOAD_TYPE, []), "not signed", id="no signature"),
    pytest.param(lambda: sign(content(1, STRICT), PAYLOAD_TYPE, [OTHER_KEY]), "not signed", id="wrong key"),
    pytest.param(
        lambda: sign(content(1), "application/vnd.edge.command+json", [KEY]),
        "another purpose",
        id="a command",
    ),
    pytest.param(tampered, "does not fit", id="altered"),
    pytest.param(one_of_two_bad, "does not fit", id="two signatures, the trusted one bad"),
    pytest.param(lambda: push(1, name="other"), "another site", id="other device"),
    pytest.param(lambda: push(1, site="other"), "another site", id="other site"),
    pytest.param(lambda: push(1, scope="fleet", name=None), "another site", id="fleet's here"),
    pytest.param(lambda: push(1, scope="group", name="entrances"), "another site", id="group's here"),
    pytest.param(lambda: push(1, scope="world"), "scope", id="unknown scope"),
    pytest.param(lambda: push(1, name=None), "is named", id="nameless"),
    pytest.param(lambda: push(0), "version", id="version 0"),
    pytest.param(lambda: push(2**53), "version", id="version beyond all numbers"),
    pytest.param(lambda: push("7"), "version", id="version as text"),
    pytest.param(lambda: push(1.0), "version", id="version as a float"),
    pytest.param(lambda: push(True), "version", id="version true"),
    pytest.param(lambda: push(1, patch=[]), "patch", id="patch that is a list"),
    pytest.param(lambda: push(1, more=1), "more", id="unknown key beside"),
    pytest.param(lambda: push(1, schema="edge.config-desired/2"), "schema", id="newer schema"),
    pytest.param(lambda: sign(b"\xff\xfe", PAYLOAD_TYPE, [KEY]), "no JSON", id="not UTF-8"),
    pytest.param(lambda: sign(b"[]", PAYLOAD_TYPE, [KEY]), "no JSON object", id="a list"),
    pytest.param(deep, "deeply|envelope|JSON", id="deep JSON"),
    pytest.param(twice, "twice", id="a key twice"),
    pytest.param(
        lambda: sign(content(1).replace(b"{}", b'{"decision":{"margin":NaN}}'), PAYLOAD_TYPE, [KEY]),
        "not a number",
        id="NaN",
    ),
    pytest.param(lambda: push(1, {"x": "y" * 65536}), "bytes are more", id="64 KiB and more"),
    pytest.param(lambda: push(1, {"decision": {"margin": 7}}), "decision.margin", id="out of range"),
    pytest.param(lambda: push(1, {"decision": {"margin": "wide"}}), "decision.margin", id="wrong type"),
    pytest.param(lambda: push(1, {"decision": {"min_shots": 20}}), "max_shots", id="inconsistent"),
    pytest.param(lambda: push(1, {"decision": 7}), "cannot be pushed", id="a table that is a number"),
    pytest.param(lambda: push(1, {"decisions": {"margin": 0.1}}), "cannot be pushed", id="unknown table"),
    pytest.param(lambda: push(1, {"decision": {"margins": 0.1}}), "cannot be pushed", id="unknown key"),
]


@pytest.mark.parametrize(("attack", "says"), ATTACKS)
def test_what_is_not_as_it_should_be_is_refused_for_one_reason(
    door: Door, attack: Callable[[], bytes], says: str
):
    taken(door, push(1, STRICT, scope="fleet", name=None), "fleet")
    door.desk.keep()
    assert door.desk.take("device", attack()) is None
    report = door.desk.report
    assert report.status == "rejected"
    assert report.error is not None
    assert any(part in report.error for part in says.split("|")), report.error
    assert report.error.isprintable()
    assert not door.desk.trying
    assert door.in_force().decision.target_fpir == 0.0001
    assert door.metrics.counts()["config.refused"] == 1


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
        assert says in (desk.report.error or "")
        assert desk.take("device", push(5, STRICT)) is None, "the same again is no news"


def test_the_version_of_a_refused_push_is_spent_before_it_is_read(door: Door):
    assert door.desk.take("device", push(5, {"decision": {"margin": 7}})) is None
    assert door.desk.take("device", push(5, STRICT)) is None
    assert "version 5" in (door.desk.report.error or "")
    assert door.desk.take("device", push(6, STRICT)) is not None


def test_a_group_that_the_device_left_is_not_listened_to(tmp_path: Path):
    door = Door(tmp_path)
    assert door.desk.take("group:south", push(1, scope="group", name="south")) is None
    assert "not in" in (door.desk.report.error or "")


def test_without_a_trusted_key_pushes_are_refused_and_old_ones_do_not_count(tmp_path: Path):
    door = Door(tmp_path)
    taken(door, push(1, STRICT))
    door.desk.keep()
    distrusting = Door(tmp_path, trusted="")
    assert distrusting.desk.take("device", push(2, STRICT)) is None
    assert "no key is trusted" in (distrusting.desk.report.error or "")
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


class Driver:
    """A runner over a desk, with a door that works or does not."""

    def __init__(self, door: Door) -> None:
        self.door, self.now_s, self.works, self.builds = door, 0.0, True, True
        self.in_force = door.read({})
        self.told: list[dict[str, Any]] = []
        self.runner = PushRunner(
            door.desk,
            apply=self.apply,
            settings=lambda: self.in_force,
            seen=self.seen,
            publish=self.told.append,
            clock=self,
        )

    def monotonic(self) -> float:
        return self.now_s

    def now(self) -> datetime:
        return datetime(2026, 11, 24, tzinfo=UTC)

    def apply(self, settings: Settings) -> None:
        if not self.builds:
            raise ConfigError("no such model")
        self.in_force = settings

    def seen(self) -> Seen:
        frames = int(self.now_s * 25) if self.works else 0
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
        driver.now_s += 0.25
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
        self.monkeypatch, self.write = monkeypatch, safefile.write_whole
        monkeypatch.setattr("edge.safefile.write_whole", self.refuse)

    def refuse(self, path: Path, data: bytes, mode: int = 0) -> None:
        raise FileError(f"{path}: cannot be written: No space left on device")

    def mend(self) -> None:
        self.monkeypatch.setattr("edge.safefile.write_whole", self.write)


def ticked(driver: Driver, seconds: float) -> None:
    for _ in range(int(seconds / 0.25)):
        driver.now_s += 0.25
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


def test_a_memory_that_cannot_be_read_refuses_pushes_and_keeps_no_door_shut(
    door: Door, monkeypatch: pytest.MonkeyPatch
):
    taken(door, push(5, STRICT))
    door.desk.keep()

    def fail(path: Path, max_bytes: int) -> bytes | None:
        raise FileError(f"{path}: cannot be read: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("edge.safefile.read_bounded", fail)
        again = door.restarted()
        assert again.take("device", push(6)) is None
        assert "not known" in (again.report.error or "")
    assert again.take("device", push(4)) is None, "old pushes are not let in"
    assert "came before" in (again.report.error or "")
    assert again.versions == {"device": 5}
    assert again.take("device", push(6)) is not None
