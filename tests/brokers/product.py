"""What of the product holds with a broker, a row each: the real daemon, and the real commands beside it."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from edge.device.settings.load import environment_without_settings
from edge.fleet.rollout.config import make_signing_key
from edge.mqtt.contract.topics import Topics
from tests.brokers.kinds import RunningBroker
from tests.brokers.probe import Probe, probe
from tests.brokers.protocol import YES, newest
from tests.e2e.device import ROOT, Device
from tests.support.command_line import invoke, write_config
from tests.support.postgres import running_postgres
from tests.support.waits import wait_until

ENOUGH = 3
"""Decisions before and after something happens."""

PATIENCE_S = 90.0
"""How long the product may need: what nobody acknowledged is sent again after 60 s."""


BIRTH_S = 15.0
"""A door answers Home Assistant within five seconds of its start."""


class Site:
    """A door with a clip before its camera, an operator and a broker between them."""

    def __init__(self, broker: RunningBroker, directory: Path, state: Path, models: Path, clip: Path) -> None:
        self.broker = broker
        self.directory = directory
        self.key = directory / "push.pem"
        trusted = make_signing_key(self.key)
        self.camera = {"front": f'source = "{clip}"\nloop = true'}
        settings = (
            "decision.cooldown_s = 0.5",
            'outbox.delivery = "consumer"',
            "homeassistant.discovery = true",
            "commands.unsigned_reads = true",
            f'push.trusted_keys = ["{trusted}"]',
            "push.probation_s = 2",
        )
        (directory / "door").mkdir()
        self.door = Device(directory / "door", models, broker.port, self.camera, settings)
        state.rename(self.door.state)
        self.office = write_config(
            directory,
            'mqtt.host = "127.0.0.1"',
            f"mqtt.port = {broker.port}",
            name="office.toml",
            site="test",
            state_dir=directory / "office",
        )
        self.versions = 0

    def operator(self, *words: str | Path) -> tuple[int, str]:
        """Run a command of the operator; returns its exit code and what it printed, or its one line."""
        done = invoke(*words, config=self.office)
        told = done.output if done.exception is None or done.exit_code < 2 else ""
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            told += str(done.exception)
        return done.exit_code, told.strip()

    def push(self, *options: str) -> tuple[int, str]:
        self.versions += 1
        patch = self.directory / "patch.toml"
        patch.write_text(f"[decision]\nmargin = {0.05 + self.versions / 1000}\n")
        words = ("config", "push", patch, "--key", self.key, "--version", str(self.versions))
        return self.operator(*words, "--wait", "30", *options)

    @contextmanager
    def newcomer(self, *topics: str) -> Iterator[Probe]:
        with probe(self.broker, newest(self.broker)) as each:
            each.subscribe(*topics)
            yield each

    @contextmanager
    def following(self, *options: str) -> Iterator[str]:
        """A follower of the journal in a process of its own; yields its first line."""
        words = (sys.executable, "-m", "edge", "journal", "follow", "--config", str(self.office), *options)
        process = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment_without_settings(),
        )
        assert process.stderr is not None
        try:
            yield process.stderr.readline().strip()
        finally:
            process.kill()
            process.wait()
            process.stderr.close()

    def waiting(self) -> int:
        """How many decisions the door has not forgotten yet."""
        path = f"file:{self.door.state / 'outbox.sqlite'}?mode=ro"
        with closing(sqlite3.connect(path, uri=True)) as outbox:
            return int(outbox.execute("SELECT COUNT(*) FROM event").fetchone()[0])

    def soon(self, condition: Callable[[], bool]) -> bool:
        try:
            wait_until(condition, limit_s=PATIENCE_S)
        except AssertionError:
            return False
        return True

    def restart_door(self, *, clip: bool = True) -> None:
        self.door.stop()
        self.door.cameras = self.camera if clip else {}
        self.door.start()
        self.soon(lambda: bool(self.door.said("connected to the broker")))


Row = Callable[[Site], str]


def doctor(site: Site) -> str:
    """What `edge doctor` says of the broker before the daemon runs."""
    done = invoke("doctor", "--json", config=site.door.write())
    found = [each for each in json.loads(done.stdout)["findings"] if each["about"].startswith("broker")]
    told = [
        f"{each['light']}: {each['told']}"
        for each in found
        if each["light"] != "green" and each["about"] != "broker: journal"  # nobody keeps it yet
    ]
    return "; ".join(told) or "green"


def connects(site: Site) -> str:
    site.door.start()
    if not site.soon(lambda: bool(site.door.said("connected to the broker"))):
        return "no connection"
    said = site.door.said("connected to the broker")[0]["message"]
    older = site.door.said("does not speak MQTT 5")
    return f"{said.rpartition(' with ')[2]}{'; says so in the log' if older else ''}"


def live(site: Site) -> str:
    with site.newcomer("edge/v1/+/+/camera/+/event") as each:
        return YES if each.hear(PATIENCE_S) else "no event"


def newcomers(site: Site) -> str:
    """What somebody who comes now finds of a door: status, info, camera, push."""
    leaves = ("status", "info", "camera/front/status", "config/reported")
    exact = [f"{ROOT}/{leaf}" for leaf in leaves]
    missing = {}
    for what, topics in (("exact", exact), ("edge/v1/#", ["edge/v1/#"])):
        with site.newcomer(*topics) as each:
            found = {heard.topic for heard in each.hear_all(2.0) if heard.retained}
        missing[what] = [leaf for leaf in leaves if f"{ROOT}/{leaf}" not in found]
    if not any(missing.values()):
        return YES
    return f"with names: {'all' if not missing['exact'] else 'not all'}; by wildcard: " + (
        "none" if len(missing["edge/v1/#"]) == len(leaves) else "some"
    )


def discovery(site: Site) -> str:
    """What Home Assistant finds that comes back; and once it says that it has started."""
    with site.newcomer("homeassistant/#") as each:
        if any(heard.retained and heard.topic.endswith("/config") for heard in each.hear_all(2.0)):
            return YES
        each.publish("homeassistant/status", b"online")
        while (heard := each.hear(BIRTH_S)) is not None:
            if heard.topic.endswith("/config"):
                return "once it says that it has started"
    return "no"


def command(site: Site) -> str:
    code, told = site.operator("fleet", "command", "door", "diagnostics", "--wait", "20")
    return YES if code == 0 else told


def pushed(site: Site) -> str:
    code, told = site.push("--scope", "device", "--name", "door")
    return YES if code == 0 and "applied" in told else told


def pushed_to_all(site: Site) -> str:
    code, told = site.push("--scope", "fleet")
    return YES if code == 0 and "applied" in told else told


def status_named(site: Site) -> str:
    code, told = site.operator("config", "status", "door", "--json")
    return YES if code == 0 and json.loads(told)["reported"] else told


def status_of_all(site: Site) -> str:
    code, told = site.operator("config", "status", "--json")
    return YES if code == 0 and json.loads(told)["devices"]["door"]["in_force"] else told


def pushed_while_away(site: Site) -> str:
    """A push that is published while the door is off is in force when it is back."""
    site.door.stop()
    code, told = site.push("--scope", "device", "--name", "door", "--offline-ok")
    if code:
        return told
    site.restart_door()

    def applied() -> bool:
        with site.newcomer(f"{ROOT}/config/reported") as each:
            return any(
                (report := json.loads(heard.payload))["status"] == "applied"
                and report["version"] == site.versions
                for heard in each.hear_all(1.0)
                if heard.topic == f"{ROOT}/config/reported"  # amqtt sends more than was asked for
            )

    return YES if site.soon(applied) else "not applied"


def journal(site: Site) -> str:
    """Every decision once, with the broker killed twice and the consumer acknowledging."""
    kept = site.directory / "journal.sqlite"
    with site.following("--to", str(kept), "--ack"):
        for _ in range(2):
            enough = len(site.door.decided()) + ENOUGH
            site.soon(lambda enough=enough: len(site.door.decided()) >= enough)  # type: ignore[misc]
            site.broker.restart(killed=True)
        decided = {line["event_id"] for line in site.door.decided()}
        site.restart_door(clip=False)
        emptied = site.soon(lambda: site.waiting() == 0)
    with closing(sqlite3.connect(kept)) as database:
        rows = database.execute("SELECT event_id, seq FROM decision ORDER BY seq").fetchall()
    site.restart_door()
    lost = decided - {event_id for event_id, _ in rows}
    numbers = [seq for _, seq in rows]
    if lost or not emptied:
        return f"{len(lost)} of {len(decided)} not kept, {site.waiting()} wait at the door"
    assert len(set(numbers)) == len(numbers)
    return YES


def shared_journal(site: Site) -> str:
    """Two consumers share the work, and every decision is kept once."""
    with running_postgres() as server:
        options = ("--to", server.database(), "--ack", "--share", "keepers")
        with site.following(*options) as said, site.following(*options):
            if not said.startswith("following"):
                return said
            enough = len(site.door.decided()) + ENOUGH
            site.soon(lambda: len(site.door.decided()) >= enough)
            site.restart_door(clip=False)
            emptied = site.soon(lambda: site.waiting() == 0)
    left = site.waiting()
    site.restart_door()
    return YES if emptied else f"nothing is heard, {left} wait at the door"


def gone(site: Site) -> str:
    """The daemon is killed: who listens hears it, and who comes later finds it."""
    with site.newcomer(f"{ROOT}/status") as each:
        each.hear_all(2.0)
        site.door.stop(signal.SIGKILL)
        heard = each.hear(30.0)
    if heard is None or heard.payload != b"offline":
        return "not told"
    with site.newcomer(f"{ROOT}/status") as each:
        found = [heard.payload for heard in each.hear_all(2.0)]
    return YES if found and set(found) == {b"offline"} else "told once, later not"


def forgotten(site: Site) -> str:
    """`edge fleet forget` takes back what the broker keeps of a door that is gone."""
    code, told = site.operator("fleet", "forget", "door", "--running")
    exact = Topics("test", "door").documents(("front",))
    with site.newcomer(*exact) as each:
        left = [heard.topic for heard in each.hear_all(2.0)]
    return YES if code == 0 and not left else f"{told}; {len(left)} left"


ROWS: Mapping[str, Row] = {
    "`edge doctor`": doctor,
    "the daemon connects": connects,
    "decisions, live": live,
    "what a newcomer finds": newcomers,
    "Home Assistant discovery": discovery,
    "`fleet command`": command,
    "`config push` to a door": pushed,
    "`config push` to the fleet": pushed_to_all,
    "`config status` of a door": status_named,
    "`config status` of all": status_of_all,
    "a push while the door is off": pushed_while_away,
    "journal once over kill -9": journal,
    "`journal follow --share`": shared_journal,
    "a door that dies is offline": gone,
    "`fleet forget`": forgotten,
}
