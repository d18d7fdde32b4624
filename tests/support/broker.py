"""A real mosquitto for a test, and a subscriber to see what arrives there."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.mqtt.client import let_go
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until


def mosquitto_binary() -> str:
    binary = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    assert binary, "mosquitto is not installed; `make test` installs it"
    return binary


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Mosquitto:
    """One broker on a port of its own, which it keeps over restarts. Without persistence: kill loses all."""

    directory: Path
    lines: tuple[str, ...] = ("allow_anonymous true",)
    listener: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "Mosquitto":
        config = self.directory / f"mosquitto-{self.port}.conf"
        user = ("user root",) if os.geteuid() == 0 else ()
        lines = (f"listener {self.port} 127.0.0.1", *self.listener, *user, *self.lines)
        config.write_text("\n".join(lines) + "\n")
        with (self.directory / f"mosquitto-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [mosquitto_binary(), "-c", str(config)], stdout=log, stderr=subprocess.STDOUT
            )
        wait_until(self.answers, what="mosquitto listens")
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return listens(self.port)

    def log(self) -> str:
        return (self.directory / f"mosquitto-{self.port}.log").read_text(errors="replace")

    def stop(self, signum: int = signal.SIGTERM) -> None:
        if self.process is not None:
            if signum != signal.SIGKILL:  # which one that is frozen obeys without a last word
                self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signum)
            self.process.wait(LIMIT_S)
            self.process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self) -> None:
        self.kill()
        self.start()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


def leave(client: paho.Client) -> None:
    """End a client whose loop runs; else its sockets are found open in whichever test comes then."""
    client.disconnect()
    client.loop_stop()
    let_go(client)


@dataclass(frozen=True)
class Seen:
    topic: str
    payload: bytes
    retain: bool
    qos: int
    at_s: float = field(default_factory=time.time, compare=False)


class Subscriber:
    """Collects messages in `seen`; comes back by itself when the broker restarts, and keeps its session."""

    def __init__(self, port: int, topics: str | tuple[str, ...] = "#", **options: Any) -> None:
        self.seen: list[Seen] = []
        self.subscribed = threading.Event()
        self._topics = (topics,) if isinstance(topics, str) else topics
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=options.get("client_id", f"subscriber-{id(self)}"),
            clean_session=False,
            protocol=paho.MQTTv311,
        )
        client.reconnect_delay_set(0.05, 0.1)  # type: ignore[arg-type]
        if "username" in options:
            client.username_pw_set(options["username"], options["password"])
        client.on_connect = self._on_connect
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = lambda _c, _u, m: self.seen.append(Seen(m.topic, m.payload, m.retain, m.qos))
        client.connect("127.0.0.1", port)
        client.loop_start()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])

    def on(self, suffix: str) -> list[bytes]:
        return [message.payload for message in list(self.seen) if message.topic.endswith(suffix)]

    def wait(self, condition: Callable[[], Any], *, limit_s: float = LIMIT_S) -> None:
        wait_until(condition, self._topics_seen, limit_s=limit_s)

    def _topics_seen(self) -> str:
        return f"messages; seen on {sorted({message.topic for message in list(self.seen)})}"

    def close(self) -> None:
        leave(self._client)


@contextmanager
def subscriber(port: int, topics: str | tuple[str, ...] = "#", **options: Any) -> Iterator[Subscriber]:
    """A subscriber that is known to the broker when the body begins."""
    made = Subscriber(port, topics, **options)
    try:
        assert made.subscribed.wait(LIMIT_S), "the broker did not accept the subscription"
        yield made
    finally:
        made.close()


def retained(port: int) -> dict[str, bytes]:
    """Return what a newcomer finds: the retained messages below edge/, by topic; none is still to come."""
    # A session of its own: one that was there before may still be sent an earlier end.
    with subscriber(port, "edge/#", client_id=f"newcomer-{time.monotonic_ns()}") as newcomer:
        newcomer._client.publish("edge/end", b"", 1)
        newcomer.wait(lambda: newcomer.on("edge/end"))
    return {message.topic: message.payload for message in newcomer.seen if message.retain}
