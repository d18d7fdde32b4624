"""What the tests of `edge.mqtt` share: a broker of their own, and doors that deliver to it."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import Clock
from edge.mqtt.broker import Broker
from tests.mqtt.linking import Linking
from tests.support.door import Door
from tests.support.ports import free_port
from tests.support.waits import wait_until


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[..., Door]]:
    """Makes doors at a port; those that the test leaves open are closed after it."""
    doors: list[Door] = []

    def make(port: int, *, directory: Path = tmp_path, broker: Broker | None = None, **options: Any) -> Door:
        broker = broker or Broker("127.0.0.1", port, backoff_max_s=0.2)
        doors.append(Door(directory, broker, **options))
        return doors[-1]

    yield make
    for door in doors:
        if door.courier.is_alive():
            door.courier.stop(2.0)


@pytest.fixture
def old_broker(tmp_path: Path) -> Iterator[int]:
    """The port of a broker that speaks only MQTT 3.1.1."""
    port = free_port()
    script = Path(__file__).with_name("amqtt_child.py")
    with subprocess.Popen([sys.executable, str(script), str(port)], stderr=subprocess.DEVNULL) as process:

        def answers() -> bool:
            assert process.poll() is None
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "amqtt listens")
        yield port
        process.terminate()


@pytest.fixture
def connect() -> Iterator[Callable[..., Linking]]:
    made: list[Linking] = []

    def start(
        port: int,
        *,
        host: str = "127.0.0.1",
        client_id: str = "edge.hq.door-03",
        subscriptions: tuple[str, ...] = (),
        for_now: tuple[str, ...] = (),
        clock: Clock | None = None,
        **options: Any,
    ) -> Linking:
        broker = Broker(host, port, **{"backoff_max_s": 0.2, **options})
        made.append(Linking(broker, client_id, subscriptions, clock, for_now=for_now))
        return made[-1]

    yield start
    for linking in made:
        assert linking.link.stop(10)
