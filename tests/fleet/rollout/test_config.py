"""`edge config push` and `status` against a real broker and simulated devices."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import publish

from edge.core.errors import ConfigError, LinkError
from edge.fleet.rollout.config import make_signing_key
from edge.mqtt.broker import Broker
from tests.fleet.simulated import Fleet, SimulatedDevice
from tests.support.broker import Mosquitto, subscriber
from tests.support.command_line import run, write_config
from tests.support.waits import Stopwatch


class Site:
    """An operator with a key, and three devices, the last two in the group `north`."""

    def __init__(self, directory: Path, broker: Mosquitto) -> None:
        self.directory, self.broker = directory, broker
        trusted = make_signing_key(directory / "push.pem")
        make_signing_key(directory / "other.pem")
        (directory / "patch.toml").write_text("[decision]\nmargin = 0.1\n")
        port = f"mqtt.port = {broker.port}"
        self.settings = write_config(directory, port, site="test", state_dir=directory / "office")
        groups: list[tuple[str, ...]] = [(), ("north",), ("north",)]
        self.fleet = Fleet(
            [
                SimulatedDevice(directory, n, Broker("127.0.0.1", broker.port), trusted, of)
                for n, of in enumerate(groups)
            ]
        )
        self._stopping = threading.Event()
        self._server = threading.Thread(target=self._serve)

    def start(self) -> None:
        for device in self.fleet.devices:
            self.fleet.connect(device)
        while self.fleet.connected < len(self.fleet.devices):
            self.fleet.serve(0.02)
        self._server.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.join()
        self.fleet.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self.fleet.serve(0.02)

    def config(self, *arguments: str, code: int = 0) -> str:
        return run("config", *arguments, config=self.settings, code=code)

    def push(self, *arguments: str, key: str = "push.pem", code: int = 0) -> str:
        patch, signed = str(self.directory / "patch.toml"), str(self.directory / key)
        return self.config("push", patch, "--key", signed, *arguments, code=code)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    broker = Mosquitto(tmp_path).start()
    made = Site(tmp_path, broker)
    made.start()
    yield made
    made.stop()
    broker.stop()


def test_a_refusal_is_shown_at_once_with_its_reason(site: Site):
    watch = Stopwatch()
    told = site.push("--name", "door-0000", "--version", "5", key="other.pem", code=1)
    assert "refused" in told
    assert "not signed by a key that is trusted here" in told
    site.push("--name", "door-0000", "--version", "5")
    (site.directory / "patch.toml").write_text("[decision]\nmargin = 0.2\n")
    told = site.push("--name", "door-0000", "--version", "4", code=1)
    assert "push a higher version than 5" in told
    assert watch.undisturbed_s < 30, "nothing was waited for"
    detail = json.loads(site.config("status", "door-0000", "--json"))
    assert (detail["reported"]["status"], detail["reported"]["version"]) == ("applied", 5)
    assert (detail["reported"]["refused"]["reason"], detail["reported"]["refused"]["count"]) == ("version", 2)


def test_a_name_that_nobody_has_is_refused_and_nothing_is_published(site: Site):
    for scope, name in (("device", "door-0009"), ("group", "nroth")):
        with pytest.raises(ConfigError, match=f"nothing is published: .*{name}"):
            site.push("--scope", scope, "--name", name)
    with subscriber(site.broker.port, "edge/v1/test/+/config/desired") as heard:
        time.sleep(0.3)
        assert heard.seen == []
        site.push("--name", "door-0009", "--offline-ok")
        heard.wait(lambda: heard.on("door-0009/config/desired"))
    with pytest.raises(ConfigError, match="nothing is published"):
        site.push("--name", "door-0009")


def test_a_group_is_those_who_say_so(site: Site):
    told = site.push("--scope", "group", "--name", "north", "--version", "1")
    assert told.count("applied") == 2
    assert "door-0000" not in told


def test_the_status_of_one_and_of_all(site: Site):
    site.push("--scope", "fleet", "--version", "3")
    every = site.config("status")
    assert every == site.config("status", "--fleet")
    assert every.count("fleet 3") == 6
    one = site.config("status", "door-0001")
    for part in ("groups", "north", "layer fleet", "version 3", "decision.margin", "applied"):
        assert part in one
    with pytest.raises(ConfigError, match="never seen"):
        site.config("status", "door-0009")
    with pytest.raises(ConfigError, match="--fleet"):
        site.config("status", "door-0001", "--fleet")


def test_the_status_of_a_site_where_somebody_always_says_something(site: Site):
    over = threading.Event()

    def say() -> None:
        while not over.wait(0.1):
            publish.single("edge/v1/test/door-0000/status", b"online", port=site.broker.port)

    saying = threading.Thread(target=say)
    saying.start()
    try:
        rows = json.loads(site.config("status", "--json"))["devices"]
    finally:
        over.set()
        saying.join()
    assert list(rows) == ["door-0000", "door-0001", "door-0002"]


def test_a_status_that_shows_nobody_is_an_error(tmp_path: Path):
    """Brokers take the subscription and withhold what its user may not read."""
    acl = tmp_path / "acl"
    acl.write_text("topic write edge/v1/#\n")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {acl}")).start()
    try:
        site = Site(tmp_path, broker)
        site.start()
        for options in ((), ("--json",), ("door-0000",)):
            with pytest.raises(LinkError, match=r"no device of site test was heard .* log in as operator"):
                site.config("status", *options)
        site.stop()
    finally:
        broker.stop()


def test_what_the_broker_forbids_is_one_line_at_once(tmp_path: Path):
    acl = tmp_path / "acl"
    acl.write_text("topic read edge/v1/#\n")
    acl.chmod(0o600)
    broker = Mosquitto(tmp_path, lines=("allow_anonymous true", f"acl_file {acl}")).start()
    try:
        site, watch = Site(tmp_path, broker), Stopwatch()
        with pytest.raises(LinkError, match="door-0000/config/desired: Not authorized"):
            site.push("--name", "door-0000", "--offline-ok")
        with pytest.raises(LinkError, match="command/reload: Not authorized"):
            run("fleet", "command", "door-0000", "reload", config=site.settings)
        assert watch.undisturbed_s < 30
    finally:
        broker.stop()
