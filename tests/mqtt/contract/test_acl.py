import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.broker import Mosquitto, subscriber
from tests.support.certificates import Authority
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
)


def password_file(directory: Path) -> Path:
    file = directory / "passwords"
    file.touch(mode=0o600)
    for user in USERS:
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, "pw"], check=True, capture_output=True)
    return file


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with the rules that we ship."""
    lines = (
        "allow_anonymous false",
        f"password_file {password_file(tmp_path)}",
        f"acl_file {DEPLOY / 'acl'}",
    )
    broker = Mosquitto(tmp_path, lines=lines).start()
    yield broker
    broker.stop()


def publish(broker: Mosquitto, user: str, topic: str, client_id: str = "") -> int:
    """Publish once as `user`; returns the reason code of the broker's answer."""
    reasons: list[int] = []
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id or f"{user}-{time.monotonic_ns()}",
        protocol=paho.MQTTv5,
    )
    client.username_pw_set(user, "pw")
    client.on_publish = lambda _c, _u, _m, reason, _p: reasons.append(reason.value)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    wait_until(client.is_connected)
    client.publish(topic, b"x", qos=1)
    wait_until(lambda: reasons)
    client.disconnect()
    client.loop_stop()
    return reasons[0]


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
    assert publish(guarded, "homeassistant", "edge/v1/hq/door-03/command/restart") == DENIED


def test_the_configuration_we_ship_starts_and_guards(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certs").make()
    authority.sign("broker", "broker", "IP:127.0.0.1")
    (tmp_path / "edge.acl").write_text((DEPLOY / "acl").read_text())
    (tmp_path / "edge.passwd").write_bytes(password_file(tmp_path).read_bytes())
    shipped = (DEPLOY / "mosquitto.conf").read_text()
    adapted = (
        shipped.replace("/etc/mosquitto/certs", str(authority.directory))
        .replace("/etc/mosquitto", str(tmp_path))
        .replace("/var/lib/mosquitto/", f"{tmp_path}/")
    )
    lines = [line for line in adapted.splitlines() if line and not line.startswith("#")]
    assert lines.pop(0) == "listener 8883"
    broker = Mosquitto(tmp_path, lines=tuple(lines)).start()
    try:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.username_pw_set("hq/door-03", "pw")
        client.tls_set(str(authority.file))
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
