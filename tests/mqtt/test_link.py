import logging
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError
from edge.metrics import Metrics
from edge.mqtt.broker import Broker, Connected, Disconnected, Published, Will, tls_context
from edge.mqtt.link import LinkThread
from tests.broker import Mosquitto, free_port, subscriber, wait_until
from tests.mqtt.certificates import Authority

WILL = Will("edge/v1/hq/door-03/status", b"offline")


class Linking:
    """A running link and what it reported."""

    def __init__(self, broker: Broker, client_id: str = "edge.hq.door-03") -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.metrics = Metrics()
        self.link = LinkThread(
            self.inbox, broker, client_id=client_id, will=WILL, metrics=self.metrics, clock=SystemClock()
        )
        self.link.start()

    def next(self, kind: type, timeout_s: float = 10.0) -> Any:
        until_s = time.monotonic() + timeout_s
        while True:
            item = self.inbox.get(timeout=max(0.01, until_s - time.monotonic()))
            if isinstance(item, kind):
                return item


@pytest.fixture
def connect() -> Iterator[Callable[..., Linking]]:
    made: list[Linking] = []

    def start(
        port: int, *, host: str = "127.0.0.1", client_id: str = "edge.hq.door-03", **options: Any
    ) -> Linking:
        made.append(Linking(Broker(host, port, **{"backoff_max_s": 0.2, **options}), client_id))
        return made[-1]

    yield start
    for linking in made:
        assert linking.link.stop(10)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki") / "ca").make()


@pytest.fixture
def tls_broker(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Mosquitto]]:
    started: list[Mosquitto] = []

    def start(*lines: str, names: str = "IP:127.0.0.1,DNS:localhost") -> Mosquitto:
        certificate, key = authority.sign("broker", "broker", names)
        listener = (f"cafile {authority.file}", f"certfile {certificate}", f"keyfile {key}", *lines)
        started.append(Mosquitto(tmp_path, listener=listener).start())
        return started[-1]

    yield start
    for broker in started:
        broker.stop()


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
    started_s = time.monotonic()
    linking = connect(old_broker)

    connected = linking.next(Connected)

    assert time.monotonic() - started_s < 3.0
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
    monkeypatch.setattr("edge.mqtt.link.CONNECT_TIMEOUT_S", 0.3)
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
        started_s = time.monotonic()
        assert linking.link.stop(5)
        assert time.monotonic() - started_s < 1.0


def users_only(directory: Path, users: dict[str, str]) -> tuple[str, ...]:
    """Lines of a configuration that admits only `users`, and their password file."""
    file = directory / "passwords"
    file.touch(mode=0o600)
    for user, password in users.items():
        subprocess.run(["mosquitto_passwd", "-b", str(file), user, password], check=True, capture_output=True)
    return "allow_anonymous false", f"password_file {file}"


@pytest.mark.parametrize("version", ["auto", "3.1.1"])
def test_a_wrong_password_is_said_once_and_tried_slowly(
    tmp_path: Path, connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture, version: str
) -> None:
    caplog.set_level(logging.DEBUG)
    broker = Mosquitto(tmp_path, lines=users_only(tmp_path, {"hq/door-03": "right"})).start()
    try:
        linking = connect(broker.port, version=version, username="hq/door-03", password="wr0ng-s3cret")
        wait_until(lambda: linking.metrics.counts().get("mqtt.faults", 0) >= 3)
    finally:
        broker.stop()
    told = [record for record in caplog.records if "mqtt.username and mqtt.password_file" in record.message]
    assert [record.levelno for record in told][:3] == [logging.WARNING, logging.DEBUG, logging.DEBUG]
    assert f"127.0.0.1:{broker.port}" in told[0].message
    assert "wr0ng-s3cret" not in caplog.text


def test_the_right_password_is_accepted(tmp_path: Path, connect: Callable[..., Linking]) -> None:
    broker = Mosquitto(tmp_path, lines=users_only(tmp_path, {"hq/door-03": "right"})).start()
    try:
        connect(broker.port, username="hq/door-03", password="right").next(Connected)
    finally:
        broker.stop()


def test_a_password_is_never_part_of_what_is_printed() -> None:
    assert "s3cret" not in repr(Broker("h", 1, username="u", password="s3cret"))


def test_tls_with_a_trusted_certificate_connects(
    tls_broker: Callable[..., Mosquitto], authority: Authority, connect: Callable[..., Linking]
) -> None:
    broker = tls_broker()
    linking = connect(broker.port, tls=tls_context(authority.file, None, None))
    connection = linking.next(Connected).connection
    large = b"x" * 200_000
    with_answer = linking.link.publish(connection, "t", large, qos=1)

    assert linking.next(Published).mid == with_answer


def test_tls_with_a_certificate_of_our_own_connects(
    tls_broker: Callable[..., Mosquitto], authority: Authority, connect: Callable[..., Linking]
) -> None:
    broker = tls_broker("require_certificate true")
    certificate, key = authority.sign("door", "hq/door-03")

    connect(broker.port, tls=tls_context(authority.file, certificate, key)).next(Connected)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        pytest.param(
            "unknown authority", "not trusted: .*set mqtt.ca_file", id="broker signed by somebody else"
        ),
        pytest.param(
            "other name", "not trusted: .*mqtt.host to a name in it", id="certificate of another host"
        ),
        pytest.param(
            "plain broker", "no TLS with the broker .* or set mqtt.tls = false", id="broker without TLS"
        ),
        pytest.param(
            "plain device", "hung up without an answer; .* set mqtt.tls = true", id="device without TLS"
        ),
        pytest.param("no certificate", "hung up .*set mqtt.cert_file and mqtt.key_file", id="no certificate"),
    ],
)
def test_a_tls_mismatch_is_said_clearly(
    case: str,
    message: str,
    tmp_path: Path,
    mosquitto: Mosquitto,
    tls_broker: Callable[..., Mosquitto],
    authority: Authority,
    connect: Callable[..., Linking],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trusting = tls_context(authority.file, None, None)
    match case:
        case "unknown authority":
            stranger = Authority(tmp_path / "stranger").make()
            connect(tls_broker().port, tls=tls_context(stranger.file, None, None))
        case "other name":
            connect(tls_broker(names="DNS:broker.example").port, tls=trusting)
        case "plain broker":
            connect(mosquitto.port, tls=trusting)
        case "plain device":
            connect(tls_broker().port)
        case "no certificate":
            connect(tls_broker("require_certificate true").port, tls=trusting)

    wait_until(lambda: [record for record in caplog.records if record.levelno == logging.WARNING])

    assert re.search(message, caplog.text), caplog.text


@pytest.mark.parametrize(
    ("host", "message"),
    [
        pytest.param("no-such-host.invalid", "correct mqtt.host", id="unknown name"),
        pytest.param("a" * 70, "correct mqtt.host", id="no name at all"),
    ],
)
def test_a_wrong_host_is_said_clearly(
    host: str, message: str, connect: Callable[..., Linking], caplog: pytest.LogCaptureFixture
) -> None:
    connect(1883, host=host)

    wait_until(lambda: message in caplog.text)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param(
            ("absent", None, None), "mqtt.ca_file: cannot use .*absent.*No such file", id="no CA file"
        ),
        pytest.param(("text", None, None), "mqtt.ca_file: .*PEM certificates", id="no certificates in it"),
        pytest.param(
            (None, "absent", "text"), "mqtt.cert_file, mqtt.key_file: .*No such", id="no certificate"
        ),
        pytest.param((None, "door.pem", "other.key"), "KEY_VALUES_MISMATCH|mismatch", id="a key of another"),
        pytest.param((None, "door.pem", "sealed.key"), "without a passphrase", id="a key with a passphrase"),
    ],
)
def test_certificate_files_that_cannot_be_used_are_named(
    files: tuple[str | None, ...], message: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca").make()
    authority.sign("door", "hq/door-03")
    _, other = authority.sign("other", "hq/door-04")
    (authority.directory / "text").write_text("no certificate")
    subprocess.run(
        [
            "openssl",
            "ec",
            "-aes128",
            "-passout",
            "pass:x",
            "-in",
            other,
            "-out",
            other.with_name("sealed.key"),
        ],
        check=True,
        capture_output=True,
    )
    ca_file, cert_file, key_file = (None if name is None else authority.directory / name for name in files)

    with pytest.raises(ConfigError, match=message):
        tls_context(ca_file, cert_file, key_file)
