import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.fleet.certificates import Authority
from edge.mqtt.contract.messages import VERBS
from edge.mqtt.contract.topics import CHANNELS, Party
from tests.brokers.kinds import rules_by_name
from tests.support.broker import Mosquitto, subscriber
from tests.support.places import ROOT
from tests.support.waits import wait_until

DEPLOY = ROOT / "deploy" / "mosquitto"
USERS = (
    "hq/door-03",
    "hq/door-04",
    "annex/door-03",
    "building",
    "homeassistant",
    "journal",
    "operator",
    "page",
)


def password_file(directory: Path) -> Path:
    file = directory / "passwords"
    file.touch(mode=0o600)
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, "pw"], check=True, capture_output=True)
    return file


@pytest.fixture(params=["by pattern", "by name"])
def guarded(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mosquitto]:
    """A broker with the rules that we ship, and with those that name each device, for mosquitto 2.1."""
    acl = DEPLOY / "acl"
    if request.param == "by name":
        acl = tmp_path / "acl"
        acl.write_text(rules_by_name(*(user for user in USERS if "/" in user)))
        acl.chmod(0o600)
    lines = (
        "allow_anonymous false",
        f"password_file {password_file(tmp_path)}",
        f"acl_file {acl}",
    )
    broker = Mosquitto(tmp_path, lines=lines).start()
    yield broker
    broker.stop()


def publish(broker: Mosquitto, user: str, topic: str, client_id: str = "") -> int:
    """Publish once as `user`; returns the reason code of the broker's answer."""
    return publish_all(broker, user, (topic,), client_id)[0]


def publish_all(broker: Mosquitto, user: str, topics: Sequence[str], client_id: str = "") -> list[int]:
    """Publish once to each topic as `user`; returns the reason codes of the broker's answers."""
    reasons: dict[int, int] = {}
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id or f"{user}-{time.monotonic_ns()}",
        protocol=paho.MQTTv5,
    )
    client.username_pw_set(user, "pw")
    client.on_publish = lambda _c, _u, mid, reason, _p: reasons.update({mid: reason.value})
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    wait_until(client.is_connected)
    mids = [client.publish(topic, b"x", qos=1).mid for topic in topics]
    wait_until(lambda: len(reasons) == len(mids))
    client.disconnect()
    client.loop_stop()
    return [reasons[mid] for mid in mids]


ALLOWED = (0, 0x10)
DENIED = 0x87


@pytest.mark.parametrize(
    "leaf",
    [
        "status",
        "info",
        "health",
        "camera/front/event",
        "camera/front/journal",
        "camera/front/state",
        "outbox_dropped",
        "canary",
    ],
)
def test_a_device_publishes_below_its_own_name(guarded: Mosquitto, leaf: str) -> None:
    assert publish(guarded, "hq/door-03", f"edge/v1/hq/door-03/{leaf}") in ALLOWED


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param("edge/v1/hq/door-04/status", id="another device"),
        pytest.param("edge/v1/hq/door-04/camera/front/event", id="another door's decisions"),
        pytest.param("edge/v1/annex/door-03/status", id="the same name on another site"),
        pytest.param("edge/v1/hq/door-04/config/desired", id="another's configuration"),
        pytest.param("edge/v1/hq/door-04/ack", id="an acknowledgement to another"),
        pytest.param("edge/v1/hq/door-03/ack", id="an acknowledgement to itself"),
        pytest.param("edge/v1/hq/door-03/config/desired", id="its own configuration"),
        pytest.param("edge/v1/hq/door-03/command/restart", id="a command to itself"),
        pytest.param("edge/v1/hq/door-031/status", id="a name that begins like its own"),
        pytest.param("edge/v2/hq/door-03/status", id="another version of the topics"),
        pytest.param("homeassistant/status", id="the building system's own"),
        pytest.param("homeassistant/device/edge__hq__door-04/config", id="another's description"),
        pytest.param("homeassistant/sensor/x/config", id="a description of something else"),
    ],
)
def test_a_device_publishes_nowhere_else(guarded: Mosquitto, topic: str) -> None:
    assert publish(guarded, "hq/door-03", topic) == DENIED


NAMES = {"site": "hq", "device": "door-03", "camera": "front", "verb": "enroll", "group": "north"}
LOGINS = {party: "hq/door-03" if party is Party.DEVICE else party.value for party in Party}


@pytest.fixture
def with_group(guarded: Mosquitto) -> Mosquitto:
    """A broker with the rules that we ship, and the line for the group of the example."""
    line = "pattern read edge/v1/hq/_group-north/config/desired"
    mended(guarded, f"# {line}", line)
    return guarded


@pytest.mark.parametrize("party", Party)
def test_who_may_publish_is_what_the_table_of_channels_says(with_group: Mosquitto, party: Party) -> None:
    reasons = publish_all(with_group, LOGINS[party], [channel.topic(**NAMES) for channel in CHANNELS])
    allowed = {channel.name for channel, reason in zip(CHANNELS, reasons, strict=True) if reason in ALLOWED}
    assert set(reasons) <= {*ALLOWED, DENIED}
    assert allowed == {channel.name for channel in CHANNELS if party in channel.publishers}


def test_who_may_subscribe_is_what_the_table_of_channels_says(with_group: Mosquitto) -> None:
    rules = with_group.directory / "acl"
    rules.write_text(f"{rules.read_text()}\nuser annex/door-03\ntopic write #\n")
    with_group.restart()
    topics = {channel.topic(**NAMES): channel for channel in CHANNELS}
    with ExitStack() as stack:
        subscribers = {
            party: stack.enter_context(subscriber(with_group.port, username=login, password="pw"))
            for party, login in LOGINS.items()
        }
        publish_all(with_group, "annex/door-03", list(topics))
        due = {
            party: {channel.name for channel in CHANNELS if party in channel.subscribers} for party in Party
        }
        for party, seen in subscribers.items():
            seen.wait(lambda seen=seen, party=party: len(seen.seen) >= len(due[party]))
        publish(with_group, "annex/door-03", "edge/v1/hq/door-03/ack")
        subscribers[Party.DEVICE].wait(lambda: len(subscribers[Party.DEVICE].on("/door-03/ack")) == 2)
    heard = {
        party: {topics[message.topic].name for message in seen.seen} for party, seen in subscribers.items()
    }
    assert heard == due


def test_every_rule_for_our_topics_is_for_a_channel() -> None:
    lines = (DEPLOY / "acl").read_text().splitlines()
    rules = [line.split()[2] for line in lines if line.startswith(("pattern ", "topic "))]
    topics = [channel.topic(**NAMES | {"verb": verb}) for channel in CHANNELS for verb in VERBS]
    ours = [rule.replace("%u", "hq/door-03") for rule in rules if rule.startswith("edge/")]
    assert len(ours) > 10
    assert [rule for rule in ours if not any(paho.topic_matches_sub(rule, topic) for topic in topics)] == []


def test_a_borrowed_client_id_opens_nothing(guarded: Mosquitto) -> None:
    assert publish(guarded, "hq/door-03", "edge/v1/hq/door-04/status", client_id="edge.hq.door-04") == DENIED


def test_the_building_only_reads(guarded: Mosquitto) -> None:
    assert publish(guarded, "building", "edge/v1/hq/door-03/status") == DENIED
    assert publish(guarded, "building", "edge/v1/hq/door-03/ack") == DENIED


def test_who_keeps_the_journal_reads_and_acknowledges_and_no_more(guarded: Mosquitto) -> None:
    assert publish(guarded, "journal", "edge/v1/hq/door-03/ack") in ALLOWED
    assert publish(guarded, "journal", "edge/v1/hq/door-03/command/restart") == DENIED
    assert publish(guarded, "journal", "edge/v1/hq/door-03/camera/front/journal") == DENIED
    with subscriber(guarded.port, username="journal", password="pw") as keeper:
        publish(guarded, "hq/door-03", "edge/v1/hq/door-03/camera/front/journal")
        keeper.wait(lambda: keeper.seen)


def test_the_building_sees_every_device_and_a_device_only_what_it_is_told(guarded: Mosquitto) -> None:
    told = ["command/enroll", "config/desired", "gallery/desired", "ack"]
    said = ["status", "camera/front/journal"]
    open_broker = ("user operator", "topic readwrite edge/v1/#")
    rules = guarded.directory / "acl"
    rules.write_text((DEPLOY / "acl").read_text() + "\n".join(["", *open_broker, ""]))
    subprocess.run(
        ["mosquitto_passwd", "-b", str(guarded.directory / "passwords"), "operator", "pw"],
        check=True,
        capture_output=True,
    )
    guarded.lines = (*guarded.lines[:2], f"acl_file {rules}")
    guarded.restart()
    with (
        subscriber(guarded.port, username="building", password="pw") as building,
        subscriber(guarded.port, username="hq/door-03", password="pw") as device,
    ):
        for name in ("hq/door-03", "hq/door-04"):
            for leaf in (*told, *said):
                publish(guarded, "operator", f"edge/v1/{name}/{leaf}")
        building.wait(lambda: len(building.seen) == 12)
        device.wait(lambda: len(device.seen) >= 4)
        time.sleep(0.05)
    assert {message.topic for message in device.seen} == {f"edge/v1/hq/door-03/{leaf}" for leaf in told}


def mended(broker: Mosquitto, old: str, new: str) -> None:
    """Start the broker anew with the rules that we ship, changed as their comments say."""
    shipped = (DEPLOY / "acl").read_text()
    assert not old or old in shipped
    rules = broker.directory / "acl"
    rules.write_text(shipped.replace(old, new) if old else f"{shipped}\n{new}\n")
    broker.lines = (*broker.lines[:2], f"acl_file {rules}")
    broker.restart()


def test_a_device_may_describe_itself_where_its_own_lines_are_added(guarded: Mosquitto) -> None:
    lines = [line.removeprefix("#").strip() for line in (DEPLOY / "acl").read_text().splitlines()]
    start = lines.index("user hq/door-03")
    mended(guarded, "", "\n".join(lines[start : start + 3]))
    for name in ("edge__hq__door-03", "edge__hq__door-03__front"):
        topic = f"homeassistant/device/{name}/config"
        assert publish(guarded, "hq/door-03", topic) in ALLOWED
        assert publish(guarded, "hq/door-04", topic) == DENIED
    assert publish(guarded, "hq/door-03", "edge/v1/hq/door-03/status") in ALLOWED, "the patterns still hold"
    assert publish(guarded, "hq/door-03", "homeassistant/device/edge__hq__door-04/config") == DENIED


def test_every_device_may_describe_itself_with_the_short_line(guarded: Mosquitto) -> None:
    line = "pattern write homeassistant/device/+/config"
    mended(guarded, f"# {line}", line)
    for name, user in (("edge__hq__door-03", "hq/door-03"), ("edge__hq__door-04__front", "hq/door-04")):
        assert publish(guarded, user, f"homeassistant/device/{name}/config") in ALLOWED


def test_home_assistant_reads_every_door_and_says_when_it_has_started(guarded: Mosquitto) -> None:
    with (
        subscriber(guarded.port, username="homeassistant", password="pw") as assistant,
        subscriber(guarded.port, username="hq/door-03", password="pw") as device,
    ):
        assert publish(guarded, "homeassistant", "homeassistant/status") in ALLOWED
        device.wait(lambda: device.on("homeassistant/status"))
        publish(guarded, "hq/door-03", "edge/v1/hq/door-03/camera/front/event")
        assistant.wait(lambda: assistant.on("camera/front/event"))
    for verb in ("restart", "subjects", "identify", "snapshot", "enroll"):
        assert publish(guarded, "homeassistant", f"edge/v1/hq/door-03/command/{verb}") == DENIED
    for verb in ("selftest", "diagnostics"):
        assert publish(guarded, "homeassistant", f"edge/v1/hq/door-03/command/{verb}") in ALLOWED


def test_the_configuration_we_ship_starts_and_guards(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    Authority(tmp_path / "keys", datetime.now(UTC)).issue(
        "broker", certs, "broker", days=1, hosts=["127.0.0.1"]
    )
    (tmp_path / "edge.acl").write_text((DEPLOY / "acl").read_text())
    (tmp_path / "edge.passwd").write_bytes(password_file(tmp_path).read_bytes())
    shipped = (DEPLOY / "mosquitto.conf").read_text()
    adapted = (
        shipped.replace("/etc/mosquitto/certs", str(certs))
        .replace("/etc/mosquitto", str(tmp_path))
        .replace("/var/lib/mosquitto/", f"{tmp_path}/")
    )
    lines = [line for line in adapted.splitlines() if line and not line.startswith("#")]
    assert lines.pop(0) == "listener 8883"
    broker = Mosquitto(tmp_path, lines=tuple(lines)).start()
    try:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set("hq/door-03", "pw")
        client.tls_set(str(certs / "ca.crt"))
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        wait_until(client.is_connected)
        client.disconnect()
        client.loop_stop()
    finally:
        broker.stop()


@pytest.mark.parametrize(
    ("user", "allowed"),
    [("operator", True), ("building", False), ("hq/door-03", False), ("hq/door-04", False)],
)
def test_only_the_operator_asks_a_door_to_synchronise(guarded: Mosquitto, user: str, allowed: bool) -> None:
    reason = publish(guarded, user, "edge/v1/hq/door-03/gallery/desired")
    assert reason in ALLOWED if allowed else reason == DENIED
