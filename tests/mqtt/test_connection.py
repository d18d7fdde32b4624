import gc
import queue
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt.broker import Connected, Disconnected, Published, Received, Refused
from tests.mqtt.linking import WILL, Linking
from tests.support.broker import Mosquitto, subscriber
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, Stopwatch, wait_until


@pytest.fixture
def collected_by_hand() -> Iterator[None]:
    """What refers to each other stays."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(("version", "spoken"), [("auto", "5"), ("5", "5"), ("3.1.1", "3.1.1")])
def test_it_speaks_the_version_asked_for(
    mosquitto: Mosquitto, connect: Callable[..., Linking], version: str, spoken: str
) -> None:
    linking = connect(mosquitto.port, version=version)

    connected = linking.next(Connected)

    assert connected.protocol == spoken
    assert connected.connection == 1
    assert connected.receive_maximum == (20 if spoken == "5" else 65535), "what mosquitto announces"


def test_an_old_broker_is_spoken_to_in_its_own_version_soon(
    old_broker: int, connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    watch = Stopwatch()
    linking = connect(old_broker)

    connected = linking.next(Connected)

    assert watch.undisturbed_s < 3.0
    assert connected.protocol == "3.1.1"
    mid = linking.link.publish(connected.connection, "t", b"x", qos=1, expiry_s=10)
    assert linking.next(Published) == Published(connected.connection, mid, 0)
    assert len([record for record in caplog.records if "does not speak MQTT 5" in record.message]) == 1


def test_a_broker_that_hangs_up_on_version_5_is_tried_with_the_old_one(
    connect: Callable[..., Linking],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        levels: list[int] = []

        def serve() -> None:
            for _ in range(2):
                with server.accept()[0] as connection:
                    packet = connection.recv(1024)
                    levels.append(packet[packet.index(b"MQTT") + 4])
                    if levels[-1] == 4:
                        connection.sendall(bytes([0x20, 2, 0, 0]))
                        connection.recv(1024)

        thread = threading.Thread(target=serve)
        thread.start()
        linking = connect(server.getsockname()[1])
        assert linking.next(Connected).protocol == "3.1.1"
        linking.link.stop(5)
        thread.join()
    assert levels == [5, 4]


def test_a_broker_that_has_spoken_version_5_is_not_taken_for_an_old_one_because_it_hangs_up(
    connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    levels: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in range(4):
                with server.accept()[0] as connection:
                    packet = connection.recv(1024)
                    levels.append(packet[packet.index(b"MQTT") + 4])
                    if number in (0, 3):
                        connection.sendall(bytes([0x20, 3, 0, 0, 0]))
                        time.sleep(0.2)

        thread = threading.Thread(target=serve)
        thread.start()
        linking = connect(server.getsockname()[1], backoff_max_s=0.1)
        assert [linking.next(Connected).protocol for _ in range(2)] == ["5", "5"]
        thread.join()
        linking.link.stop(5)
    assert levels == [5] * 4
    assert "does not speak MQTT 5" not in caplog.text


def test_a_broker_that_refuses_the_version_is_believed(
    connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(bytes([0x20, 2, 0, 1]))

        thread = threading.Thread(target=serve)
        thread.start()
        connect(server.getsockname()[1], version="5", backoff_max_s=60.0)
        wait_until(lambda: "another version of MQTT; set mqtt.version = 'auto'" in caplog.text)
        thread.join()


def test_messages_are_answered_and_arrive(mosquitto: Mosquitto, connect: Callable[..., Linking]) -> None:
    linking = connect(mosquitto.port)
    connection = linking.next(Connected).connection
    with subscriber(mosquitto.port) as seen:
        mid = linking.link.publish(connection, "a/b", b"payload", qos=1)
        assert linking.next(Published) == Published(connection, mid, 0)
        linking.link.publish(connection, "a/c", b"kept", qos=0, retain=True)
        seen.wait(lambda: len(seen.seen) == 2)
    assert [(message.topic, message.payload) for message in seen.seen] == [
        ("a/b", b"payload"),
        ("a/c", b"kept"),
    ]
    with subscriber(mosquitto.port) as late:
        late.wait(lambda: late.seen)
    assert [(message.topic, message.retain) for message in late.seen] == [("a/c", True)]


def test_a_message_nobody_subscribed_to_is_answered_as_such(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
) -> None:
    linking = connect(mosquitto.port)
    connection = linking.next(Connected).connection

    linking.link.publish(connection, "a/b", b"payload", qos=1)

    assert linking.next(Published).reason == 0x10


def test_nothing_is_sent_on_another_connection_than_meant(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
) -> None:
    linking = connect(mosquitto.port)
    first = linking.next(Connected).connection
    with subscriber(mosquitto.port) as seen:
        assert linking.link.publish(first + 1, "t", b"early", qos=1) is None
        mosquitto.restart()
        assert linking.next(Disconnected).connection == first
        assert linking.link.publish(first, "t", b"late", qos=1) is None
        second = linking.next(Connected).connection
        assert second > first
        assert linking.link.publish(first, "t", b"late", qos=1) is None
        linking.link.publish(second, "t", b"now", qos=1)
        linking.next(Published)
    assert b"late" not in seen.on("t")


def test_a_broker_that_appears_later_is_found(
    tmp_path: Path, connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    broker = Mosquitto(tmp_path)
    linking = connect(broker.port)
    wait_until(lambda: linking.metrics.counts().get("mqtt.faults", 0) >= 3)
    assert len([record for record in caplog.records if "no broker listens" in record.message]) == 1, (
        "said once"
    )

    broker.start()
    try:
        linking.next(Connected)
    finally:
        broker.stop()


def test_a_frozen_broker_is_noticed(mosquitto: Mosquitto, connect: Callable[..., Linking]) -> None:
    linking = connect(mosquitto.port, keepalive_s=1)
    linking.next(Connected)
    mosquitto.freeze()
    try:
        linking.next(Disconnected)
    finally:
        mosquitto.thaw()
    linking.next(Connected)


def test_a_port_that_accepts_and_says_nothing_is_given_up(
    connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.mqtt.broker.CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect(server.getsockname()[1])
        wait_until(lambda: "does not answer" in caplog.text)


def test_a_second_device_of_the_same_name_is_named(
    mosquitto: Mosquitto, connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    connect(mosquitto.port).next(Connected)
    connect(mosquitto.port).next(Connected)

    wait_until(lambda: "another device with the client id edge.hq.door-03?" in caplog.text)


def test_a_broker_that_names_the_second_device_is_believed(
    connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(1024)
                connection.sendall(bytes([0x20, 3, 0, 0, 0]))
                connection.sendall(bytes([0xE0, 2, 142, 0]))

        thread = threading.Thread(target=serve)
        thread.start()
        connect(server.getsockname()[1], backoff_max_s=60.0)
        wait_until(lambda: "two devices have the same site and device; rename one" in caplog.text)
        thread.join()


def test_the_will_speaks_when_the_process_is_killed(mosquitto: Mosquitto) -> None:
    with subscriber(mosquitto.port) as seen:
        script = Path(__file__).with_name("link_child.py")
        with subprocess.Popen(
            [sys.executable, str(script), str(mosquitto.port)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"connected\n"
            child.kill()
        seen.wait(lambda: seen.on(WILL.topic) == [b"offline"])
    with subscriber(mosquitto.port) as late:
        late.wait(lambda: [message.retain for message in late.seen] == [True])


def test_stopping_takes_leave_so_that_the_will_stays_unsaid(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
) -> None:
    linking = connect(mosquitto.port)
    connection = linking.next(Connected).connection
    with subscriber(mosquitto.port) as seen:
        for number in range(10):
            linking.link.publish(connection, "t", str(number).encode(), qos=1)
        for _ in range(10):
            linking.next(Published)
        assert linking.link.stop(5)
        seen.wait(lambda: len(seen.on("t")) == 10)
        time.sleep(0.05)
    assert seen.on("status") == []
    assert linking.next(Disconnected).connection == connection


@pytest.mark.parametrize("where", ["closed port", "silent port"])
def test_stopping_never_waits_for_a_connection(connect: Callable[..., Linking], where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        linking = connect(
            free_port() if where == "closed port" else server.getsockname()[1], backoff_max_s=60.0
        )
        time.sleep(0.2)
        watch = Stopwatch()
        assert linking.link.stop(5)
        assert watch.undisturbed_s < 1.0


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_is_published_to_us_is_heard(
    mosquitto: Mosquitto, connect: Callable[..., Linking], version: str
) -> None:
    with publisher(mosquitto.port) as client:
        client.publish("to/us", b"kept", qos=1, retain=True).wait_for_publish(LIMIT_S)
        linking = connect(mosquitto.port, version=version, subscriptions=("to/us", "to/all/+"))
        kept = linking.next(Received)
        assert (kept.topic, kept.payload, kept.retained) == ("to/us", b"kept", True)
        client.publish("to/others", b"no", qos=1).wait_for_publish(LIMIT_S)
        properties = Properties(PacketTypes.PUBLISH)
        properties.ResponseTopic, properties.CorrelationData = "answer/here", b"\x00\x01"
        client.publish("to/all/x", b"yes", qos=1, properties=properties).wait_for_publish(LIMIT_S)
        heard = linking.next(Received)
    assert (heard.topic, heard.payload, heard.retained) == ("to/all/x", b"yes", False)
    if version == "5":
        assert (heard.response_topic, heard.correlation) == ("answer/here", b"\x00\x01")


@pytest.mark.parametrize(("version", "tells"), [("5", True), ("3.1.1", False)])
def test_what_is_for_now_is_told_to_be_retained_also_when_it_comes_live(
    mosquitto: Mosquitto, connect: Callable[..., Linking], version: str, tells: bool
) -> None:
    linking = connect(mosquitto.port, version=version, subscriptions=("now/+", "later"), for_now=("now/+",))
    linking.next(Connected)
    with publisher(mosquitto.port) as client:
        wait_until(lambda: _heard(client, linking, "later"))
        client.publish("now/x", b"retained", qos=1, retain=True).wait_for_publish(LIMIT_S)
        assert linking.next(Received, topic="now/x").retained is tells
        client.publish("now/x", b"", qos=1, retain=True).wait_for_publish(LIMIT_S)
        client.publish("later", b"retained", qos=1, retain=True).wait_for_publish(LIMIT_S)
        client.publish("later", b"end", qos=1).wait_for_publish(LIMIT_S)
        later = linking.next(Received, topic="later")
        while later.payload != b"retained":
            later = linking.next(Received, topic="later")
    assert later.retained is False, "for others it means what it always did: it lay there before we came"


def test_we_listen_again_on_every_connection(mosquitto: Mosquitto, connect: Callable[..., Linking]) -> None:
    linking = connect(mosquitto.port, subscriptions=("to/us",))
    linking.next(Connected)
    mosquitto.restart()
    linking.next(Connected)
    with publisher(mosquitto.port) as client:
        wait_until(lambda: _heard(client, linking))


def test_a_connection_that_has_ended_holds_nothing_until_garbage_is_collected(
    mosquitto: Mosquitto, connect: Callable[..., Linking], collected_by_hand: None
) -> None:
    linking = connect(mosquitto.port)
    linking.next(Connected)
    assert linking.link._session is not None
    first = weakref.ref(linking.link._session.client)
    mosquitto.restart()
    linking.next(Connected)
    wait_until(lambda: first() is None, "the client of the first connection is gone, and its sockets")


def test_a_message_too_large_is_told_and_not_kept(
    mosquitto: Mosquitto, connect: Callable[..., Linking]
) -> None:
    linking = connect(mosquitto.port, subscriptions=("to/us",))
    linking.next(Connected)
    with publisher(mosquitto.port) as client:
        wait_until(lambda: _heard(client, linking))
        client.publish("to/us", bytes(512 * 1024 + 1), qos=1).wait_for_publish(LIMIT_S)
    refused = linking.next(Refused)
    assert (refused.topic, refused.size) == ("to/us", 512 * 1024 + 1)


def _heard(client: paho.Client, linking: Linking, topic: str = "to/us") -> bool:
    """Publish until it is heard: the subscription may still be under way."""
    client.publish(topic, b"?", qos=1).wait_for_publish(LIMIT_S)
    try:
        return linking.next(Received, 0.2) is not None
    except queue.Empty:
        return False


@contextmanager
def publisher(port: int) -> Iterator[paho.Client]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()
