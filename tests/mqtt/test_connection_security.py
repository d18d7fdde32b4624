import logging
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.core.errors import ConfigError
from edge.mqtt.broker import Broker, Connected, Published, tls_context
from tests.mqtt.linking import Linking
from tests.support.broker import Mosquitto
from tests.support.certificates import Authority
from tests.support.waits import wait_until


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
