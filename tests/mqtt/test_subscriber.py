"""The listener of tools: MQTT 5 first, what a broker refuses in one clear line, and older brokers."""

import queue
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from edge.core.errors import LinkError
from edge.mqtt.subscriber import Listener
from tests.support.broker import Mosquitto, subscriber
from tests.support.waits import LIMIT_S, wait_until

ACL = """
user operator
topic read answers/#
topic write asked/#
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that lets `operator` publish to asked/ alone."""
    passwords, acl = tmp_path / "passwords", tmp_path / "acl"
    passwords.touch(mode=0o600)
    command = ["mosquitto_passwd", "-b", str(passwords), "operator", "pw"]
    subprocess.run(command, check=True, capture_output=True)
    acl.write_text(ACL)
    acl.chmod(0o600)
    lines = ("allow_anonymous false", f"password_file {passwords}", f"acl_file {acl}")
    broker = Mosquitto(tmp_path, lines=lines).start()
    yield broker
    broker.stop()


def test_what_may_not_be_published_is_told(guarded: Mosquitto):
    with Listener("127.0.0.1", guarded.port, ("answers/+",), username="operator", password="pw") as listener:
        listener.publish("asked/x", b"1")
        listener.publish("secret/x", b"1")
        refusals: list[str] = []
        wait_until(lambda: refusals.append(listener.refusal() or "") or any(refusals))
        assert "secret/x: Not authorized" in "".join(refusals)
        assert listener.refusal() is None


def test_what_nobody_takes_stays_at_the_broker(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.mqtt.subscriber.MOST_WAITING", 3)
    with (
        Listener("127.0.0.1", mosquitto.port, ("t",)) as listener,
        subscriber(mosquitto.port, ("t",)) as seen,
    ):
        for number in range(60):
            seen._client.publish("t", b"%d" % number, qos=1)
        seen.wait(lambda: len(seen.seen) == 60)
        assert 0 < listener.messages.qsize() < 50, "two a second"
        found = [listener.messages.get(timeout=LIMIT_S).payload for _ in range(60)]
    assert found == [b"%d" % number for number in range(60)]


def test_a_wrong_password_is_told(guarded: Mosquitto):
    with pytest.raises(LinkError, match="refuses: Not authorized"):
        Listener("127.0.0.1", guarded.port, ("a",), username="operator", password="no").__enter__()


@pytest.mark.parametrize(("version", "comes_back"), [("auto", b"\x01"), ("5", b"\x01"), ("3.1.1", None)])
def test_what_is_asked_comes_back_with_the_answer(
    mosquitto: Mosquitto, version: Literal["auto", "5", "3.1.1"], comes_back: bytes | None
):
    with Listener("127.0.0.1", mosquitto.port, ("t",), version=version) as listener:
        listener.publish("t", b"x", correlation=b"\x01")
        message = listener.messages.get(timeout=LIMIT_S)
        assert (message.payload, message.correlation) == (b"x", comes_back)
        assert listener.protocol == ("3.1.1" if version == "3.1.1" else "5")


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_session_keeps_what_comes_meanwhile_and_what_is_not_confirmed(
    mosquitto: Mosquitto, version: Literal["5", "3.1.1"]
):
    def listener() -> Listener:
        return Listener("127.0.0.1", mosquitto.port, ("t",), version=version, session="me")

    with listener():
        pass
    with subscriber(mosquitto.port) as heard, Listener("127.0.0.1", mosquitto.port, ("x",)) as other:
        other.publish("t", b"meanwhile")
        heard.wait(lambda: heard.on("t"))
    with listener() as again:
        assert again.messages.get(timeout=LIMIT_S).payload == b"meanwhile"
    with listener() as again:
        message = again.messages.get(timeout=LIMIT_S)
        again.confirm([message])
    with listener() as again, pytest.raises(queue.Empty):
        again.messages.get(timeout=0.3)


def test_a_broker_of_3_1_1_is_understood(old_broker: int):
    with Listener("127.0.0.1", old_broker, ("t",)) as listener:
        assert listener.protocol == "3.1.1"
        listener.publish("t", b"x")
        assert listener.messages.get(timeout=LIMIT_S).payload == b"x"


@contextmanager
def rude(greeting: bytes) -> Iterator[int]:
    """A server that says one thing to everybody and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1024)
                        connection.sendall(greeting)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("greeting", "says"),
    [
        pytest.param(b"", "hangs up", id="hangs up"),
        pytest.param(b"\x20\x02\x00\x01", "refuses", id="knows no version"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "hangs up|does not answer", id="a web server"),
    ],
)
def test_what_is_no_broker_is_told_in_one_line(greeting: bytes, says: str):
    with rude(greeting) as port, pytest.raises(LinkError) as caught:
        Listener("127.0.0.1", port, ("t",)).__enter__()
    assert any(part in str(caught.value) for part in says.split("|")), caught.value


def test_a_share_where_there_is_none_is_told_and_nothing_is_missed(old_broker: int):
    with pytest.raises(LinkError, match="has no shared subscriptions; use one that has"):
        Listener("127.0.0.1", old_broker, ("$share/keepers/t",)).__enter__()


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_broker_that_takes_no_connection_without_a_name_is_heard_also_after_a_restart(
    tmp_path: Path, version: Literal["5", "3.1.1"]
):
    lines = ("allow_anonymous true", "allow_zero_length_clientid false")
    broker = Mosquitto(tmp_path, lines=lines).start()
    try:
        with Listener("127.0.0.1", broker.port, ("t",), version=version) as listener:
            broker.restart()

            def heard() -> bool:
                listener.publish("t", b"again")
                return not listener.messages.empty()

            wait_until(heard, "it has come back")
    finally:
        broker.stop()
