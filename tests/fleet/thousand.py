"""`python -m tests.fleet.thousand --devices 5000`: what thousands of doors ask of one broker.

The broker is a real mosquitto with the settings and access rules of deploy/mosquitto (TLS only with --tls).
The doors are `tests.fleet.simulated`. Who keeps the journal and who operates are `edge` itself. In turn: all
doors connect; people come; settings are pushed; a subject is revoked and the doors are nudged; the broker is
killed and started. Writes out/thousand.json and exits with 1 where a decision was lost or doubled.
"""

import argparse
import json
import logging
import multiprocessing
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.table import Table

from edge.core.metrics import Metrics
from edge.core.process import rss_mb
from edge.core.types import FaceEvent
from edge.device.settings.load import environment_without_settings
from edge.fleet.rollout.config import make_signing_key
from edge.mqtt.broker import Broker, tls_context
from edge.mqtt.contract.topics import LIVE_S
from edge.mqtt.delivery.sender import LIVE_MISSED
from tests.fleet.simulated import SITE, STAYS_S, Fleet, SimulatedDevice, memory_directory
from tests.support import leftovers
from tests.support.broker import Mosquitto
from tests.support.command_line import edge, write_config
from tests.support.fleets import make_fleet, people
from tests.support.places import ROOT
from tests.support.waits import LIMIT_S

DEPLOY = ROOT / "deploy" / "mosquitto"
OURS = ("listener", "cafile", "certfile", "keyfile", "password_file", "acl_file", "persistence_location")
"""Lines of deploy/mosquitto/mosquitto.conf that say where things are; all others are taken as they are."""

PASSWORD, VERSION = "pw", 3
USERS = ("building", "operator", "journal")
SPARE_FILES = 200
"""Open files of the broker beside those of the doors."""


@dataclass(frozen=True)
class Plan:
    """What is run; `doors_per_s` connect at first, `per_s` decide."""

    devices: int
    processes: int
    per_s: float
    doors_per_s: float
    quiet_s: float
    scopes: int
    keepalive_s: int
    tls: bool
    directory: Path
    port: int
    trusted: str

    def broker(self) -> Broker:
        tls = tls_context(self.directory / "broker" / "ca.crt", None, None) if self.tls else None
        return Broker(
            "localhost", self.port, version="5", password=PASSWORD, tls=tls, keepalive_s=self.keepalive_s
        )


RECEIVED, SENT, DROPPED = SYS = ("messages/received", "messages/sent", "publish/messages/dropped")
"""What mosquitto tells of itself every second."""

LISTENERS = (("edge/v1/#", *(f"$SYS/broker/{leaf}" for leaf in SYS)), ("edge/v1/+/+/camera/+/event",))
"""Who listens beside the journal's keeper: one to everything, one to decisions alone, to act on them."""


def doors(plan: Plan, first: int, pipe: Connection) -> None:
    """Serve a part of the doors in a process of its own; tells once a second how they do."""
    logging.disable(logging.CRITICAL)
    metrics, broker = Metrics(), plan.broker()
    numbers = range(first, plan.devices, plan.processes)
    fleet = Fleet(
        [
            SimulatedDevice(
                plan.directory / "doors",
                number,
                broker,
                plan.trusted,
                scope=f"scope-{number % plan.scopes}",
                consumer=True,
                patient=True,
                metrics=metrics,
            )
            for number in numbers
        ]
    )
    pipe.send({"made": len(fleet.devices)})
    pipe.recv()
    now_s = time.monotonic()
    for number, device in zip(numbers, fleet.devices, strict=True):
        fleet.at(now_s + number / plan.doors_per_s, partial(fleet.connect, device))
    decided = list[str]()

    def told(event: FaceEvent) -> None:
        decided.append(event.event_id)

    decides_s, tells_s, going = float("inf"), now_s, True
    while going:
        fleet.serve(0.02)
        now_s = time.monotonic()
        if now_s >= decides_s:
            decides_s = max(decides_s, now_s - 1) + random.expovariate(plan.per_s / plan.processes)
            fleet.decide(random.choice(fleet.devices), told)
        if now_s >= tells_s:
            tells_s = now_s + 1.0
            counts = metrics.counts()
            pipe.send(
                {
                    "connected": fleet.connected,
                    "connects": counts.get("mqtt.connects", 0),
                    "decided": len(decided),
                    "missed": counts.get(LIVE_MISSED, 0),
                    "waiting": sum(device.outbox.counts.depth for device in fleet.devices),
                }
            )
        if pipe.poll():
            match pipe.recv():
                case "decide":
                    decides_s = now_s
                case "rest":
                    decides_s = float("inf")
                case "end":
                    going = False
    pipe.send({"ids": decided})
    fleet.close()


def building(plan: Plan, topics: tuple[str, ...], pipe: Connection) -> None:
    """Hear doors as a building system does; tells once a second what came."""
    applied, published = set[str](), set[str]()
    told: dict[str, list[Any]] = {"live": [], "sys": []}

    def heard(_c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        if message.topic.startswith("$SYS"):
            leaf = message.topic.removeprefix("$SYS/broker/")
            told["sys"].append((time.monotonic(), leaf, int(message.payload)))
            return
        parts = message.topic.split("/")
        if parts[-1] == "event":
            at = re.search(rb'"captured_at":"([^"]+)"', message.payload)
            assert at
            told["live"].append(time.time() - datetime.fromisoformat(at[1].decode()).timestamp())
        elif parts[-2:] == ["config", "reported"]:
            if json.loads(message.payload)["versions"].get("fleet") == VERSION:
                applied.add(parts[3])
        elif parts[-2:] == ["gallery", "reported"] and json.loads(message.payload)["published"] > 1:
            published.add(parts[3])

    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set("building", PASSWORD)
    broker = plan.broker()
    if broker.tls is not None:
        client.tls_set_context(broker.tls)
    client.on_message = heard
    client.on_connect = lambda *_: client.subscribe([(topic, 1) for topic in topics])
    client.connect(broker.host, broker.port)
    tells_s = time.monotonic()
    while not pipe.poll():
        if client.loop(0.05) != paho.MQTT_ERR_SUCCESS:
            time.sleep(0.2)
            try:
                client.reconnect()
            except OSError:
                continue
        if time.monotonic() >= tells_s:
            tells_s = time.monotonic() + 1.0
            pipe.send(told | {"applied": len(applied), "published": len(published)})
            told.update(live=[], sys=[])


@dataclass
class Second:
    """What a second has shown; `connects` to `missed` count from the start."""

    at_s: float
    phase: str
    connected: int = 0
    connects: int = 0
    decided: int = 0
    missed: int = 0
    waiting: int = 0
    applied: int = 0
    published: int = 0
    live: list[float] = field(default_factory=list)
    sys: list[tuple[float, str, int]] = field(default_factory=list)
    broker_mb: float = 0.0
    broker_cpu_s: float = 0.0
    keeper_mb: float = 0.0


@dataclass(frozen=True)
class Command:
    """A command of the operator, to its end."""

    name: str
    seconds: float
    cpu_s: float
    peak_mb: float
    code: int


class Run:
    """Everything that runs, looked at once a second."""

    def __init__(self, plan: Plan, broker: Mosquitto, keeper: "subprocess.Popen[bytes]") -> None:
        self.plan, self.broker, self.keeper = plan, broker, keeper
        self.seconds: list[Second] = []
        self.commands: list[Command] = []
        self.marks: dict[str, float] = {}
        self.phase = "start"
        self._began_s = time.monotonic()
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self.children = []
        self._news: dict[int, dict[str, Any]] = defaultdict(dict)
        targets = [partial(doors, plan, number) for number in range(plan.processes)]
        for target in (*targets, *(partial(building, plan, topics) for topics in LISTENERS)):
            here, there = context.Pipe()
            child = context.Process(target=target, args=(there,), daemon=True)
            child.start()
            self._pipes.append(here)
            self.children.append(child)

    @property
    def doors(self) -> list[Connection]:
        return self._pipes[: self.plan.processes]

    @property
    def now(self) -> Second:
        return self.seconds[-1]

    def tell(self, word: str) -> None:
        for pipe in self.doors:
            pipe.send(word)

    def enter(self, phase: str) -> None:
        self.phase, self.marks[phase] = phase, time.monotonic() - self._began_s

    def until(self, condition: Callable[[], Any], limit_s: float = 2 * LIMIT_S) -> float:
        """Look until something is so; returns how long that took."""
        began_s = time.monotonic()
        while not condition():
            if time.monotonic() - began_s > limit_s:
                raise SystemExit(f"{self.phase}: not within {limit_s:.0f} s; last seen: {self.now}")
            self.look()
        return time.monotonic() - began_s

    def rest(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until_s)

    def look(self) -> None:
        """Hear what the children say, and add a second when all have told one."""
        time.sleep(0.05)
        for number, pipe in enumerate(self._pipes):
            while pipe.poll():
                news = pipe.recv()
                for name in ("live", "sys"):
                    if name in news:
                        news[name] = self._news[number].get(name, []) + news[name]
                self._news[number] = news
        at_s = time.monotonic() - self._began_s
        if self.seconds and at_s < self.now.at_s + 1.0:
            return
        second = Second(at_s, self.phase)
        everything, decisions = (self._news[number] for number in range(len(self.doors), len(self._pipes)))
        for number in range(len(self.doors)):
            for name, value in self._news[number].items():
                if hasattr(second, name):
                    setattr(second, name, getattr(second, name) + value)
        for name in ("applied", "published", "sys"):
            setattr(second, name, everything.get(name, getattr(second, name)))
        second.live = decisions.get("live", [])
        for news in (everything, decisions):
            news.update(live=[], sys=[])
        if self.broker.process is not None:
            second.broker_mb = rss_mb(self.broker.process.pid)
            second.broker_cpu_s = cpu_s(self.broker.process.pid)
        second.keeper_mb = rss_mb(self.keeper.pid)
        self.seconds.append(second)
        print(
            f"{at_s:5.0f} s {self.phase:10} {second.connected} connected, {second.decided} decided, "
            f"{second.waiting} wait, {second.applied} applied, {second.published} published",
            flush=True,
        )

    def command(self, name: str, *arguments: str) -> None:
        """Run a command of `edge` to its end."""
        printed = self.plan.directory / f"{name.replace(' ', '-')}.txt"
        began_s = time.monotonic()
        with printed.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "edge", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment_without_settings(),
            )
        ended: list[Any] = []

        def over() -> bool:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                ended.append(usage)
            return bool(pid)

        self.until(over)
        usage = ended[0]
        if process.returncode:
            print(f"{name}: exit {process.returncode}: {printed.read_text()[-300:]}", flush=True)
        seconds, spent_s = time.monotonic() - began_s, usage.ru_utime + usage.ru_stime
        peak_mb = usage.ru_maxrss // 1024
        told = Command(name, round(seconds, 1), round(spent_s, 1), peak_mb, process.returncode)
        self.commands.append(told)

    def end(self) -> set[str]:
        """Stop the children; returns the ids of all decisions."""
        self.tell("end")
        decided = set[str]()
        for pipe in self.doors:
            while "ids" not in (news := pipe.recv()):
                pass
            decided.update(news["ids"])
        for pipe in self._pipes[self.plan.processes :]:
            pipe.send("end")
        for child in self.children:
            child.join(LIMIT_S)
        return decided


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far. Source: proc(5), stat, fields 14 and 15."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_files(needed: int) -> None:
    """Let this process and its children open as many files, or end with a line that says how."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < needed:
        raise SystemExit(
            f"{needed} open files are needed, and {hard} allowed: raise that as root with "
            f"`ulimit -n {needed}`, or take fewer --devices"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def broker_lines(directory: Path, devices: int) -> tuple[str, ...]:
    """Return the settings of deploy/mosquitto, with users and access rules of their own files."""
    example = [line for line in (DEPLOY / "mosquitto.conf").read_text().splitlines() if line[:1].isalpha()]
    names = [*USERS, *(f"{SITE}/door-{number:04}" for number in range(devices))]
    passwords, acl, kept = directory / "passwords", directory / "acl", directory / "kept"
    passwords.write_text("".join(f"{name}:{PASSWORD}\n" for name in names))
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    acl.write_text((DEPLOY / "acl").read_text() + "\nuser building\ntopic read $SYS/#\n")
    kept.mkdir()
    for path in (passwords, acl):
        path.chmod(0o600)
    own = (f"password_file {passwords}", f"acl_file {acl}", f"persistence_location {kept}/", "sys_interval 1")
    return (*(line for line in example if line.split()[0] not in OURS), *own)


@contextmanager
def keeper(plan: Plan, config: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run who keeps the journal."""
    words = ("journal", "follow", "--to", str(plan.directory / "journal.sqlite"), "--ack")
    command = [sys.executable, "-m", "edge", *words, "--session", "keeper", "--config", str(config)]
    with (plan.directory / "keeper.txt").open("wb") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=said, env=environment_without_settings()
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_S)


def run(plan: Plan, broker: Mosquitto) -> dict[str, Any]:
    """Do it all; returns the report."""
    directory = plan.directory
    (directory / "password").write_text(PASSWORD)
    (directory / "password").chmod(0o600)

    def settings(user: str) -> Path:
        values = {"host": "localhost", "port": plan.port, "username": user, "tls": plan.tls}
        lines = [f"mqtt.{name} = {json.dumps(value)}" for name, value in values.items()]
        lines.append(f'mqtt.password_file = "{directory}/password"')
        if plan.tls:
            lines.append(f'mqtt.ca_file = "{directory}/broker/ca.crt"')
        return write_config(directory, *lines, name=f"{user}.toml", site=SITE, state_dir=directory / user)

    office = str(settings("operator"))
    scopes = [f"scope-{number}" for number in range(plan.scopes)]
    fleet = make_fleet(directory / "fleet", *scopes)
    for scope in scopes:
        fleet.publish_gallery(scope, people("p-alice", "p-bob"))
    (directory / "patch.toml").write_text("[decision]\ntarget_fpir = 0.0005\n")
    with keeper(plan, settings("journal")) as process:
        watched = Run(plan, broker, process)
        took, decided = go_through(watched, office)
    return report(watched, took, decided)


def go_through(watched: Run, office: str) -> tuple[dict[str, float], set[str]]:
    """Let everything happen in turn; returns what took how long, and the ids of all decisions."""
    plan, broker, directory = watched.plan, watched.broker, watched.plan.directory
    everywhere = ("--fleet", str(directory / "fleet"))
    took: dict[str, float] = {}
    for pipe in watched.doors:
        pipe.recv()
    watched.look()

    watched.enter("connect")
    watched.tell("begin")
    took["all connected"] = watched.until(lambda: watched.now.connected == plan.devices)
    watched.enter("quiet")
    watched.tell("decide")
    watched.rest(plan.quiet_s)
    watched.enter("push")
    began_s = time.monotonic()
    patch = (str(directory / "patch.toml"), "--scope", "fleet", "--version", str(VERSION))
    asking = ("--wait", str(LIMIT_S), "--config", office)
    watched.command("config push", "config", "push", *patch, "--key", str(directory / "push.pem"), *asking)
    watched.until(lambda: watched.now.applied == plan.devices)
    took["last report of the push"] = last_s(watched, "applied", began_s)
    watched.enter("status")
    watched.command("config status", "config", "status", "--json", "--config", office)
    watched.command("fleet status", "fleet", "status", "--json", *everywhere)
    watched.enter("revoke")
    began_s = time.monotonic()
    watched.command("fleet revoke --nudge", "fleet", "revoke", "p-bob", "--nudge", *everywhere, *asking)
    watched.until(lambda: watched.now.published == plan.devices)
    took["last report of the revocation"] = last_s(watched, "published", began_s)
    watched.enter("rest")
    watched.rest(10)
    watched.enter("restart")
    broker.kill()
    broker.start()
    watched.until(lambda: watched.now.connected < plan.devices)
    watched.command("config status in the storm", "config", "status", "--json", "--config", office)
    watched.until(lambda: watched.now.connected == plan.devices)
    took["all back"] = watched.now.at_s - watched.marks["restart"]
    watched.enter("after")
    watched.rest(plan.quiet_s / 2)
    watched.enter("drain")
    watched.tell("rest")
    watched.rest(STAYS_S + 2)
    took["drained"] = watched.until(lambda: watched.now.waiting == 0)
    return took, watched.end()


def last_s(watched: Run, counted: str, began_s: float) -> float:
    """Return after how many seconds the last door had reported, to the second."""
    full = next(each for each in watched.seconds if getattr(each, counted) == watched.plan.devices)
    return full.at_s - (began_s - watched._began_s)


def report(watched: Run, took: dict[str, float], decided: set[str]) -> dict[str, Any]:
    plan, seconds = watched.plan, watched.seconds
    with sqlite3.connect(plan.directory / "journal.sqlite") as database:
        rows = database.execute("SELECT event_id, captured_at, received_at FROM decision").fetchall()
    kept = [row[0] for row in rows]
    zero_s = time.time() - (time.monotonic() - watched._began_s)
    marks = sorted(watched.marks.items(), key=lambda each: each[1])
    journal: dict[str, list[float]] = defaultdict(list)
    for _, captured_at, received_at in rows:
        captured_s = datetime.fromisoformat(captured_at).timestamp()
        lag_s = datetime.fromisoformat(received_at).timestamp() - captured_s
        phase = [name for name, at_s in marks if at_s <= captured_s - zero_s]
        journal[phase[-1] if phase else "start"].append(lag_s)
    phases = {}
    for name, _ in marks:
        of = [each for each in seconds if each.phase == name]
        if of:
            phases[name] = phase_report(seconds, of, journal[name])
    return {
        "schema": "edge.thousand/1",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "devices": plan.devices,
        "per_s": plan.per_s,
        "tls": plan.tls,
        "load": os.getloadavg()[0],
        "decided": len(decided),
        "kept": len(kept),
        "lost": len(decided - set(kept)),
        "doubled": len(kept) - len(set(kept)),
        "wrong": len(set(kept) - decided),
        "keeper": (plan.directory / "keeper.txt").read_text().splitlines()[-1:],
        "live_missed": seconds[-1].missed,
        "dropped_by_broker": max(value for each in seconds for _, leaf, value in each.sys if leaf == DROPPED),
        "broker_mb": max(each.broker_mb for each in seconds),
        "broker_mb_before_push": max(each.broker_mb for each in seconds if each.phase == "quiet"),
        "keeper_mb": max(each.keeper_mb for each in seconds),
        "took_s": {name: round(value, 1) for name, value in took.items()},
        "phases": phases,
        "commands": [asdict(each) for each in watched.commands],
    }


def phase_report(seconds: list[Second], of: list[Second], journal: list[float]) -> dict[str, Any]:
    """Return the worst second of a phase, and how late decisions were."""
    first = seconds.index(of[0])
    pairs = list(zip(seconds[max(0, first - 1) :], of, strict=False))

    def worst(value: Callable[[Second], float]) -> float:
        return max(((value(b) - value(a)) / (b.at_s - a.at_s) for a, b in pairs), default=0.0)

    def most(leaf: str) -> float:
        told = [(at_s, value) for each in of for at_s, name, value in each.sys if name == leaf]
        rates = [(b - a) / max(1.0, b_s - a_s) for (a_s, a), (b_s, b) in pairwise(told)]
        return round(max(rates, default=0.0))

    live = [lag_s for each in of for lag_s in each.live]
    return {
        "seconds": round(of[-1].at_s - of[0].at_s, 1),
        "worst_connects_per_s": round(worst(lambda each: each.connects)),
        "worst_in_per_s": most(RECEIVED),
        "worst_out_per_s": most(SENT),
        "broker_cpu": round(worst(lambda each: each.broker_cpu_s), 2),
        "broker_cpu_mean": round((of[-1].broker_cpu_s - of[0].broker_cpu_s) / max(1.0, len(of) - 1), 2),
        "live_s": quantiles(live),
        "journal_s": quantiles(journal),
        "live_late": sum(lag_s > LIVE_S for lag_s in live),
        "journal_late": sum(lag_s > LIVE_S for lag_s in journal),
    }


def quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    if not ordered:
        return {"n": 0}
    at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
    return {"n": len(ordered)} | {name: round(value, 3) for name, value in at.items()}


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


def show(told: dict[str, Any]) -> None:
    console = Console(width=150, highlight=False)
    table = Table(
        "phase", "s", "connects/s", "in/s", "out/s", "broker CPU", "live p50/p99/max s", "journal s"
    )
    for name, each in told["phases"].items():
        lags = [
            "/".join(f"{each[kind].get(share, 0):.2f}" for share in SHARES)
            for kind in ("live_s", "journal_s")
        ]
        rates = ("seconds", "worst_connects_per_s", "worst_in_per_s", "worst_out_per_s", "broker_cpu")
        table.add_row(name, *(f"{each[rate]:g}" for rate in rates), *lags)
    console.print(table)
    commands = Table("command", "s", "CPU s", "peak MB", "exit")
    for each in told["commands"]:
        commands.add_row(
            each["name"],
            str(each["seconds"]),
            str(each["cpu_s"]),
            f"{each['peak_mb']:.0f}",
            str(each["code"]),
        )
    console.print(commands)
    console.print({name: value for name, value in told.items() if name not in ("phases", "commands")})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.thousand", description=__doc__)
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument(
        "--per-s", type=float, default=12.5, help="people who come, in all; each is two events"
    )
    parser.add_argument("--doors-per-s", type=float, default=200.0, help="doors that connect at first")
    parser.add_argument("--quiet-s", type=float, default=30.0, help="seconds in which people only come")
    parser.add_argument("--scopes", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2, help="processes that play the doors")
    parser.add_argument(
        "--keepalive-s", type=int, default=60, help="a door's own is 15; a busy machine is late"
    )
    parser.add_argument("--tls", action="store_true")
    chosen = vars(parser.parse_args())
    allow_files(chosen["devices"] + SPARE_FILES)
    leftovers.watch()
    with memory_directory() as directory, ExitStack() as stack:
        broker = Mosquitto(directory, lines=broker_lines(directory, chosen["devices"]))
        if chosen["tls"]:
            enrol = ("fleet", "enroll-device", "broker", "--host", "localhost")
            done = edge(*enrol, "--out", directory / "broker", "--keys", directory / "keys")
            assert done.returncode == 0, done.stderr
            names = {"cafile": "ca.crt", "certfile": "broker.crt", "keyfile": "broker.key"}
            broker.listener = tuple(f"{what} {directory}/broker/{name}" for what, name in names.items())
        broker.start()
        stack.callback(broker.stop)
        trusted = make_signing_key(directory / "push.pem")
        told = run(Plan(**chosen, directory=directory, port=broker.port, trusted=trusted), broker)
    show(told)
    out = Path("out")
    out.mkdir(exist_ok=True)
    (out / "thousand.json").write_text(json.dumps(told, indent=2) + "\n")
    return 1 if told["lost"] or told["doubled"] or told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
