"""Certificates of devices: who holds one is that device to the broker, and nobody else."""

import re
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion

from edge.cli.fleet.devices import USERS
from edge.core.errors import ConfigError, FleetError, LinkError
from edge.fleet.certificates import Authority
from tests.e2e.device import Device
from tests.support.broker import Mosquitto, leave
from tests.support.command_line import run, write_config
from tests.support.places import ROOT
from tests.support.waits import LIMIT_S, wait_until

ACL = ROOT / "deploy" / "mosquitto" / "acl"
CONF = ROOT / "deploy" / "mosquitto" / "mosquitto.conf"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write_config(tmp_path, site="hq", state_dir=tmp_path / "state")
    for name, options in {
        "broker": ("--host", "localhost", "--host", "127.0.0.1"),
        "door-a": (),
        "door-b": (),
    }.items():
        enroll(tmp_path, name, *options)
    return tmp_path


def enroll_user(site: Path, name: str, *options: str) -> str:
    return run("fleet", "enroll-user", name, *options, "--out", site / name, "--keys", site / "keys")


def enroll(site: Path, name: str, *options: str) -> str:
    where = ("--out", site / name, "--keys", site / "keys")
    return run("fleet", "enroll-device", name, *options, *where, config=site / "edge.toml")


@pytest.fixture
def broker(site: Path) -> Iterator[Mosquitto]:
    lines = (
        f"cafile {site}/broker/ca.crt",
        f"certfile {site}/broker/broker.crt",
        f"keyfile {site}/broker/broker.key",
        "require_certificate true",
        "use_identity_as_username true",
        f"acl_file {ACL}",
    )
    running = Mosquitto(site, lines=(), listener=lines).start()
    yield running
    running.stop()


class Client:
    """A client with somebody's certificate, or none."""

    def __init__(
        self, port: int, directory: Path | None, ca: Path, topics: tuple[str, ...] = (), file: str = "device"
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.connected, self.ended = threading.Event(), threading.Event()
        context = ssl.create_default_context(cafile=str(ca))
        if directory is not None:
            context.load_cert_chain(directory / f"{file}.crt", directory / f"{file}.key")
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self.client.tls_set_context(context)
        self.client.on_message = lambda _c, _u, m: self.heard.append((m.topic, m.payload))
        self.client.on_connect = lambda c, *_: (
            c.subscribe([(t, 1) for t in topics]) if topics else self.connected.set()
        )
        self.client.on_subscribe = lambda *_: self.connected.set()
        self.client.on_disconnect = lambda *_: self.ended.set()
        self.client.connect("localhost", port)
        self.client.loop_start()

    def close(self) -> None:
        leave(self.client)


def test_a_device_is_itself_and_nobody_else(site: Path, broker: Mosquitto):
    ca = site / "broker" / "ca.crt"
    mine, theirs = "edge/v1/hq/door-a", "edge/v1/hq/door-b"
    b = Client(broker.port, site / "door-b", ca, (f"{theirs}/config/desired", f"{theirs}/canary"))
    a = Client(
        broker.port, site / "door-a", ca, (f"{theirs}/config/desired", f"{theirs}/canary", f"{mine}/canary")
    )
    assert a.connected.wait(LIMIT_S)
    assert b.connected.wait(LIMIT_S)
    Authority(site / "keys", datetime.now(UTC)).issue("operator", site / "operator", "device", days=1)
    operator = Client(broker.port, site / "operator", ca)
    assert operator.connected.wait(LIMIT_S)
    operator.client.publish(f"{theirs}/config/desired", b"for b", 1)
    a.client.publish(f"{theirs}/canary", b"as the other", 1)
    a.client.publish(f"{mine}/canary", b"as itself", 1)
    b.client.publish(f"{theirs}/canary", b"as itself", 1)
    wait_until(lambda: a.heard and len(b.heard) > 1)
    time.sleep(0.3)
    assert a.heard == [(f"{mine}/canary", b"as itself")]
    assert sorted(b.heard) == [(f"{theirs}/canary", b"as itself"), (f"{theirs}/config/desired", b"for b")]
    for client in (a, b, operator):
        client.close()


def test_every_user_of_the_access_rules_logs_in_with_a_certificate_and_may_do_what_is_its_own(
    site: Path, broker: Mosquitto
):
    ca, door = site / "broker" / "ca.crt", "edge/v1/hq/door-a"
    topics = tuple(
        f"{door}/{leaf}" for leaf in ("config/desired", "gallery/desired", "command/reload", "ack")
    )
    device = Client(broker.port, site / "door-a", ca, topics)
    assert device.connected.wait(LIMIT_S)
    for user in USERS:
        enroll_user(site, user)
        client = Client(broker.port, site / user, ca, (f"{door}/health",), file=user)
        assert client.connected.wait(LIMIT_S)
        for topic in topics:
            client.client.publish(topic, user.encode(), 1)
        device.client.publish(f"{door}/health", b"", 1)
        wait_until(lambda c=client: c.heard, what=f"{user} reads what devices say")
        client.close()
    wait_until(lambda: len(device.heard) > 3)
    assert sorted(device.heard) == sorted(
        [(topics[3], b"journal"), *((topic, b"operator") for topic in topics[:3])]
    )
    device.close()


def test_what_is_printed_for_the_operator_is_what_the_commands_need(site: Path, broker: Mosquitto):
    device = Client(broker.port, site / "door-a", site / "broker" / "ca.crt")
    assert device.connected.wait(LIMIT_S)
    device.client.publish("edge/v1/hq/door-a/status", b"online", 1, retain=True).wait_for_publish(LIMIT_S)
    printed = enroll_user(site, "operator")
    office = site / "office.toml"
    office.write_text(f'site = "hq"\n{printed}host = "localhost"\nport = {broker.port}\n')
    assert "door-a" in run("config", "status", config=office)
    settings = enroll(site, "door-c").replace("/etc/edge", str(site / "door-c"))
    office.write_text(f'site = "hq"\n{settings}host = "localhost"\nport = {broker.port}\n')
    with pytest.raises(LinkError, match="log in as operator"):
        run("config", "status", config=office)
    device.close()


@pytest.mark.parametrize(
    ("user", "says"),
    [("hq/door-a", "no user that is not a device"), ("Operator", "no user"), ("broker", "enroll-device")],
)
def test_a_user_that_is_none_gets_no_certificate(site: Path, user: str, says: str):
    with pytest.raises(ConfigError, match=says):
        run("fleet", "enroll-user", user, "--out", site / "new", "--keys", site / "keys")
    assert not (site / "new").exists()


def test_a_user_that_the_access_rules_do_not_know_is_told_so(site: Path):
    assert "warning: the access rules have to know lift-2" in enroll_user(site, "lift-2")
    known = set(re.findall(r"^user (\S+)$", ACL.read_text(), re.M))
    assert known == set(USERS)


def test_the_files_are_called_as_the_configuration_and_the_example_name_them(site: Path):
    said = re.findall(r"^(?:cafile|certfile|keyfile) .*/(\S+)$", CONF.read_text(), re.M)
    assert (
        {path.name for path in (site / "broker").iterdir()}
        == set(said)
        == {"ca.crt", "broker.crt", "broker.key"}
    )
    example = (ROOT / "deploy" / "edge.example.toml").read_text()
    mqtt = example[example.index("[mqtt]") :]
    for key, path in re.findall(r"^(\w+_file) = (\S+)$", enroll(site, "door-d"), re.M):
        assert f"# {key} = {path} " in mqtt
        assert (site / "door-d" / path.strip('"').rpartition("/")[2]).is_file()


def test_without_a_certificate_of_this_authority_there_is_no_connection(
    site: Path, broker: Mosquitto, tmp_path: Path
):
    ca = site / "broker" / "ca.crt"
    Authority(tmp_path / "other-keys", datetime.now(UTC)).issue(
        "hq/door-a", tmp_path / "forged", "device", days=1
    )
    for directory in (None, tmp_path / "forged"):
        client = Client(broker.port, directory, ca)  # TLS 1.3 refuses after the handshake
        wait_until(lambda client=client: client.connected.is_set() or client.ended.is_set())
        assert not client.connected.is_set()
        client.close()


def test_the_daemon_connects_with_what_was_made(site: Path, broker: Mosquitto, models_dir: Path):
    device = Device(
        site,
        models_dir,
        broker.port,
        settings=(
            "mqtt.tls = true",
            f'mqtt.ca_file = "{site}/door-a/ca.crt"',
            f'mqtt.cert_file = "{site}/door-a/device.crt"',
            f'mqtt.key_file = "{site}/door-a/device.key"',
        ),
        name="door-a",
    )
    device.site = "hq"
    device.start()
    try:
        wait_until(lambda: device.said("connected to the broker"))
        time.sleep(0.5)
        assert not device.said("refuses")
    finally:
        assert device.stop() == 0


def test_keys_are_private_serials_differ_and_nothing_is_overwritten(site: Path):
    assert stat.S_IMODE((site / "door-a" / "device.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((site / "keys" / "broker-ca.key").stat().st_mode) == 0o600
    a, b = (
        x509.load_pem_x509_certificate((site / name / "device.crt").read_bytes())
        for name in ("door-a", "door-b")
    )
    assert a.serial_number != b.serial_number
    assert a.subject.rfc4514_string() == "CN=hq/door-a"
    assert a.not_valid_after_utc - datetime.now(UTC) < timedelta(days=826)
    with pytest.raises(FleetError, match="there already"):
        enroll(site, "door-a")
    (site / "keys" / "broker-ca.crt").unlink()
    with pytest.raises(FleetError, match="one is missing"):
        enroll(site, "door-c")


def strict(ca: Path) -> ssl.SSLContext:
    """As ssl.create_default_context of Python 3.13 and newer does it."""
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def test_certificates_hold_what_strict_verification_wants(site: Path, broker: Mosquitto):
    ca = site / "broker" / "ca.crt"
    with socket.create_connection(("localhost", broker.port)) as plain:
        context = strict(ca)
        context.load_cert_chain(site / "door-a" / "device.crt", site / "door-a" / "device.key")
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            assert tls.version()
    for purpose, file in (("sslserver", "broker/broker.crt"), ("sslclient", "door-a/device.crt")):
        found = site / file
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(ca), str(found)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_a_certificate_says_what_it_is_for(site: Path):
    device = x509.load_pem_x509_certificate((site / "door-a" / "device.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((site / "door-a" / "ca.crt").read_bytes())
    usage = authority.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    usage = device.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    own = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    issuer = device.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer == own
