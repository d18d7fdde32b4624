"""Brokers that are really started: what each is made of, how it is configured, and how it is run."""

import base64
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.broker import listens, mosquitto_binary
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.tried import NotHereError
from tests.support.waits import LIMIT_S, wait_until

DEPLOY = ROOT / "deploy/mosquitto"
DOOR = "hq/door-03"
USERS = {DOOR: "a door", "operator": "an operator"}
"""Users and passwords where rules are asked for: the door writes below its root, the operator reads all."""

DOOR_ROOT = "edge/v1/hq/door-03"

STOP_S = 30.0
"""How long a broker may take to end in order."""

OLDER = "Acquire::Check-Valid-Until=false"
"""A mirror of Debian that is a few weeks old serves as well; its signatures are checked all the same."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a broker listens on 127.0.0.1: MQTT 5 and 3.1.1 (mostly one port), and websockets."""

    newest: int = field(default_factory=free_port)
    older: int = field(default_factory=free_port)
    websockets: int = field(default_factory=free_port)


@dataclass(frozen=True, slots=True)
class Kind:
    """A broker of one version. `prepare` gets it into the folder of all kinds, unless it is there.

    `command` writes what it needs into an empty directory, and returns how it is started. `rules`: whether
    it can be told who may write what. `both`: whether it takes MQTT 5 and 3.1.1 at one port.
    """

    name: str
    prepare: Callable[[Path], None]
    command: Callable[[Path, Path, Ports, bool], list[str]]
    rules: bool = True
    both: bool = True
    websockets: bool = True
    ready: str = ""
    """What it writes to its log once it lets everybody in; none: as soon as it listens."""


class RunningBroker:
    """One broker on ports of its own, which it keeps over restarts."""

    def __init__(self, kind: Kind, base: Path, directory: Path, *, rules: bool = False) -> None:
        self.kind = kind
        self.users = USERS if rules else {}
        self.speaks_5: bool | None = None
        """Whether it accepts MQTT 5; None: not tried yet."""
        self.ports = Ports()
        self._log = directory / "log"
        directory.mkdir(parents=True)
        self._command = kind.command(base, directory, self.ports, rules)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """Where the product speaks to it."""
        return self.ports.newest

    @property
    def older(self) -> int:
        """Where it is spoken to with MQTT 3.1.1."""
        return self.ports.newest if self.kind.both else self.ports.older

    def start(self) -> "RunningBroker":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self._answers, lambda: f"{self.kind.name} listens: {self.log()[-2000:]}")
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        ports = {self.port, self.older} | ({self.ports.websockets} if self.kind.websockets else set())
        return all(map(listens, ports)) and self.kind.ready in self.log()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it in order; what it can keep over a restart, it keeps."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def _end(self, signum: int) -> None:
        if self._process is None:
            return
        pid = self._process.pid
        if self._command[0] == "unshare":  # which passes no signal on to its child, the first in the tree
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(pid, signum)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.kill(pid, signal.SIGKILL)
            self._process.wait(LIMIT_S)
        self._process = None

    def restart(self, *, killed: bool = False) -> None:
        (self.kill if killed else self.stop)()
        self.start()


def _run(*words: str | Path) -> None:
    """Run what fetches or makes a broker.

    Raises:
        NotHereError: It cannot be had; says why.
    """
    if shutil.which(words[0]) is None:
        raise NotHereError(f"{words[0]} is not installed")
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise NotHereError(f"{words[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def _nothing(base: Path) -> None:
    """Nothing has to be fetched."""


# What is of Debian runs in a tree of its own, and ends with its first process.


def _tree(suite: str, *packages: str) -> Callable[[Path], None]:
    def prepare(base: Path) -> None:
        tree = base / suite
        if (tree / "etc/debian_version").exists():
            return
        if os.geteuid() != 0:
            raise NotHereError("a tree of Debian needs root")
        shutil.rmtree(tree, ignore_errors=True)
        key, _, value = OLDER.partition("=")
        options = ("--quiet", "--variant=minbase", f'--aptopt={key} "{value}"')
        try:
            _run("mmdebstrap", *options, f"--include={','.join(packages)}", suite, tree)
        except NotHereError:
            shutil.rmtree(tree, ignore_errors=True)
            raise
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")

    return prepare


TRIXIE = _tree("trixie", "rabbitmq-server")
FORKY = _tree("forky", "mosquitto", "rabbitmq-server", "ejabberd")


def _inside(tree: Path, *words: str | Path, **environment: str) -> list[str]:
    """Return how a program is run in a tree, with paths as they are inside."""
    given = [f"{name}={value}" for name, value in environment.items()]
    options = ("--pid", "--fork", "--kill-child", "--mount-proc", f"--root={tree}")
    return ["unshare", *options, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *given, *map(str, words)]


def _place(tree: Path, directory: Path) -> Path:
    """Make the broker's directory inside its tree; returns it as seen from outside."""
    place = tree / "srv" / directory.parent.name / directory.name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    place.chmod(0o777)
    return place


def _write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text))
    return path


# mosquitto


def rules_by_name(*doors: str) -> str:
    """Return the access rules as deploy/mosquitto/rules-by-name.sh writes them."""
    words = ("sh", DEPLOY / "rules-by-name.sh", DEPLOY / "acl", *doors)
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _mosquitto_lines(directory: Path, seen: Path, ports: Ports, rules: bool) -> list[str]:
    """Return its configuration, and write its other files to `directory`, which it sees as `seen`."""
    lines = [
        f"listener {ports.newest} 127.0.0.1",
        f"listener {ports.websockets}",
        "protocol websockets",
        "user root",
        "persistence true",
        f"persistence_location {seen}/",
        "message_size_limit 524288",
    ]
    if not rules:
        return [*lines, "allow_anonymous true"]
    _write(directory / "acl", rules_by_name(DOOR)).chmod(0o600)
    return [*lines, "allow_anonymous false", f"password_file {seen}/users", f"acl_file {seen}/acl"]


def _mosquitto_here(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
    lines = _mosquitto_lines(directory, directory, ports, rules)
    if rules:
        _mosquitto_users(directory / "users", "mosquitto_passwd")
    config = _write(directory / "conf", "\n".join(lines) + "\n")
    return [mosquitto_binary(), "-c", str(config)]


def _mosquitto_of(suite: str) -> Callable[[Path, Path, Ports, bool], list[str]]:
    def command(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
        tree = base / suite
        place = _place(tree, directory)
        seen = Path("/") / place.relative_to(tree)
        if rules:
            _mosquitto_users(place / "users", "chroot", str(tree), "mosquitto_passwd")
        _write(place / "conf", "\n".join(_mosquitto_lines(place, seen, ports, rules)) + "\n")
        return _inside(tree, "mosquitto", "-c", seen / "conf")

    return command


def _mosquitto_users(path: Path, *program: str) -> None:
    path.write_text("".join(f"{user}:{password}\n" for user, password in USERS.items()))
    path.chmod(0o600)
    seen = path if len(program) == 1 else Path("/") / path.relative_to(program[1])
    subprocess.run([*program, "-U", seen], check=True, capture_output=True)


# RabbitMQ


RABBITMQ_READY = "Server startup complete"


def _rabbitmq_of(suite: str) -> Callable[[Path, Path, Ports, bool], list[str]]:
    def command(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
        tree = base / suite
        place = _place(tree, directory)
        seen = Path("/") / place.relative_to(tree)
        _write(place / "enabled", "[rabbitmq_mqtt,rabbitmq_web_mqtt].\n")
        _write(
            place / "conf",
            f"""\
            listeners.tcp = none
            mqtt.listeners.tcp.default = 127.0.0.1:{ports.newest}
            web_mqtt.tcp.ip = 127.0.0.1
            web_mqtt.tcp.port = {ports.websockets}
            web_mqtt.ws_path = /mqtt
            mqtt.allow_anonymous = {"false" if rules else "true"}
            anonymous_login_user = {"none" if rules else "guest"}
            anonymous_login_pass = {"none" if rules else "guest"}
            definitions.import_backend = local_filesystem
            definitions.local.path = {seen}/definitions.json
            """,
        )
        (place / "definitions.json").write_text(json.dumps(_rabbitmq_definitions(rules)))
        for each in ("data", "log"):
            (place / each).mkdir(mode=0o777)
            (place / each).chmod(0o777)
        return _inside(
            tree,
            *("setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--init-groups"),
            "/usr/lib/rabbitmq/bin/rabbitmq-server",
            HOME=f"{seen}/data",
            LANG="C.UTF-8",
            RABBITMQ_NODENAME=f"edge{ports.newest}@localhost",
            RABBITMQ_MNESIA_BASE=f"{seen}/data",
            RABBITMQ_LOG_BASE=f"{seen}/log",
            RABBITMQ_LOGS="-",
            RABBITMQ_CONFIG_FILE=f"{seen}/conf",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{seen}/enabled",
            RABBITMQ_DIST_PORT=str(ports.older),
            ERL_EPMD_PORT=str(free_port()),
            ERL_EPMD_ADDRESS="127.0.0.1",
        )

    return command


def _rabbitmq_definitions(rules: bool) -> dict[str, object]:
    """Return its users. In its rules a slash of a topic is a dot."""
    users = USERS if rules else {"guest": "guest"}
    rights = {"vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
    own = DOOR_ROOT.replace("/", r"\.")
    read = rf"^{own}\.|^edge\.v1\.hq\._fleet\."
    mine = {"vhost": "/", "exchange": "amq.topic", "write": rf"^{own}\.", "read": read}
    return {
        "vhosts": [{"name": "/"}],
        "users": [
            {"name": user, "password_hash": _rabbitmq_hash(password), "tags": ""}
            for user, password in users.items()
        ],
        "permissions": [{"user": user, **rights} for user in users],
        "topic_permissions": [{"user": DOOR, **mine}] if rules else [],
    }


def _rabbitmq_hash(password: str) -> str:
    """Source: the RabbitMQ documentation, Passwords: four bytes of salt, and SHA-256 of salt and password."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


# ejabberd


def _ejabberd(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
    tree = base / "forky"
    place = _place(tree, directory)
    seen = Path("/") / place.relative_to(tree)
    access = """\
          access_publish:
            "edge/v1/hq/door-03/#":
              - allow
            "#":
              - deny
    """
    _write(
        place / "ejabberd.yml",
        f"""\
        hosts: [localhost]
        loglevel: warning
        auth_method: [anonymous]
        anonymous_protocol: login_anon
        allow_multiple_connections: true
        listen:
          - port: {ports.newest}
            ip: 127.0.0.1
            module: mod_mqtt
            max_fsm_queue: 10000
          - port: {ports.websockets}
            ip: 127.0.0.1
            module: ejabberd_http
            request_handlers:
              /mqtt: mod_mqtt
        modules:
          mod_mqtt:
            session_expiry: 1 hour
        """,
    )
    if rules:
        with (place / "ejabberd.yml").open("a") as config:
            config.write(textwrap.indent(textwrap.dedent(access), " " * 4))
    for each in ("spool", "log"):
        (place / each).mkdir()
        (place / each).chmod(0o777)
    return _inside(
        tree,
        *("setpriv", "--reuid=ejabberd", "--regid=ejabberd", "--init-groups"),
        *("ejabberdctl", "--node", f"edge{ports.newest}@localhost", "--spool", seen / "spool"),
        *("--logs", seen / "log", "--config", seen / "ejabberd.yml"),
        *("--ctl-config", "/none", "foreground"),
        HOME=f"{seen}/spool",
        INET_DIST_INTERFACE="127.0.0.1",
        LANG="C.UTF-8",
        ERL_EPMD_PORT=str(free_port()),
        ERL_EPMD_ADDRESS="127.0.0.1",
    )


# aedes


def _aedes_fetch(base: Path) -> None:
    place = base / "aedes"
    if not (place / "node_modules/aedes").exists():
        place.mkdir(parents=True, exist_ok=True)
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", place)
        _run("npm", "install", *options, "aedes@1.2.0", "ws@8.18.0")


AEDES_SCRIPT = """\
const { Aedes } = require('aedes'), { WebSocketServer, createWebSocketStream } = require('ws')
const [port, websockets, root, users] = process.argv.slice(2)
Aedes.createBroker().then((broker) => {
  if (users) {
    const known = JSON.parse(users)
    broker.authenticate = (client, name, password, done) => {
      client.user = name
      done(null, known[name] === String(password))
    }
    const may = (client, topic) => client.user === 'operator' || topic.startsWith(root + '/')
    broker.authorizePublish = (client, packet, done) =>
      done(may(client, packet.topic) ? null : new Error('denied'))
    broker.authorizeSubscribe = (client, wanted, done) =>
      done(null, may(client, wanted.topic) ? wanted : null)
  }
  require('net').createServer(broker.handle).listen(port, '127.0.0.1')
  new WebSocketServer({ port: websockets, host: '127.0.0.1' }).on('connection', (socket) =>
    broker.handle(createWebSocketStream(socket)))
})
"""


def _aedes(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
    script = base / "aedes" / "broker.js"
    script.write_text(AEDES_SCRIPT)
    users = [json.dumps(USERS)] if rules else []
    return ["node", str(script), str(ports.newest), str(ports.websockets), DOOR_ROOT, *users]


# rumqttd, as a library of Python has it


def _rumqttd_fetch(base: Path) -> None:
    if not (base / "rumqttd/iotcore").exists():
        options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:")
        _run(sys.executable, "-m", "pip", "install", *options, "--target", base / "rumqttd", "iotcore==0.4.0")


def _rumqttd(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
    def listener(section: str, name: str, port: int) -> str:
        return f"""\
            [{section}.1]
            name = "{name}"
            listen = "127.0.0.1:{port}"
            next_connection_delay_ms = 1
            [{section}.1.connections]
            connection_timeout_ms = 60000
            max_payload_size = 600000
            max_inflight_count = 100
            dynamic_filters = true
            """

    router = """\
        id = 0
        [router]
        max_connections = 1000
        max_outgoing_packet_count = 200
        max_segment_size = 104857600
        max_segment_count = 10
        """
    parts = (
        router,
        listener("v4", "older", ports.older),
        listener("v5", "newest", ports.newest),
        listener("ws", "websockets", ports.websockets),
    )
    config = directory / "rumqttd.toml"
    config.write_text("".join(map(textwrap.dedent, parts)))
    program = f"from iotcore import Broker; Broker(config_path={str(config)!r}).run_forever()"
    return ["env", f"PYTHONPATH={base / 'rumqttd'}", sys.executable, "-c", program]


# amqtt, which the demo has


AMQTT_SCRIPT = """\
import asyncio, sys
from amqtt.broker import Broker

async def serve():
    port, websockets = sys.argv[1:]
    listeners = {
        "default": {"type": "tcp", "bind": f"127.0.0.1:{port}"},
        "page": {"type": "ws", "bind": f"127.0.0.1:{websockets}"},
    }
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    await Broker({"listeners": listeners, "plugins": plugins}).start()
    await asyncio.Event().wait()

asyncio.run(serve())
"""


def _amqtt(base: Path, directory: Path, ports: Ports, rules: bool) -> list[str]:
    script = directory / "broker.py"
    script.write_text(AMQTT_SCRIPT)
    return [sys.executable, str(script), str(ports.newest), str(ports.websockets)]


MOSQUITTO = Kind("mosquitto 2.0.11", _nothing, _mosquitto_here)
AMQTT = Kind("amqtt 0.12.1", _nothing, _amqtt, rules=False)
KINDS: Sequence[Kind] = (
    MOSQUITTO,
    Kind("mosquitto 2.1.2", FORKY, _mosquitto_of("forky")),
    Kind("RabbitMQ 4.0.5", TRIXIE, _rabbitmq_of("trixie"), ready=RABBITMQ_READY),
    Kind("RabbitMQ 4.3.6", FORKY, _rabbitmq_of("forky"), ready=RABBITMQ_READY),
    Kind("ejabberd 26.07", FORKY, _ejabberd),
    Kind("rumqttd (iotcore 0.4.0)", _rumqttd_fetch, _rumqttd, rules=False, both=False),
    Kind("aedes 1.2.0", _aedes_fetch, _aedes),
    AMQTT,
)
