"""An MQTT broker inside this process, for a first look without installing one. MQTT 3.1.1 only.

For the demo alone: a door needs a real broker such as mosquitto, see deploy/mosquitto.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from edge.core.errors import ConfigError, LinkError

VERSION: Final = "3.1.1"
"""The protocol it speaks. Named to the daemon, so that it need not find out by being refused."""

START_S = 10.0


@contextmanager
def embedded_broker() -> Iterator[tuple[int, int]]:
    """Run a broker on free local ports while the body runs; yields its port and that of its websockets.

    Raises:
        ConfigError: The demo's extra is not installed.
        LinkError: The broker does not start.
    """
    try:
        from amqtt.broker import Broker
    except ImportError:
        raise ConfigError(
            "the embedded broker is not installed; install edge-recognizer[demo] or use --broker HOST:PORT"
        ) from None
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    port, websockets = _free_ports()
    config = {
        "listeners": {
            "default": {"type": "tcp", "bind": f"127.0.0.1:{port}"},
            "page": {"type": "ws", "bind": f"127.0.0.1:{websockets}"},
        },
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="broker", daemon=True)
    thread.start()
    try:
        broker = asyncio.run_coroutine_threadsafe(_make(Broker, config), loop).result(START_S)
        try:
            asyncio.run_coroutine_threadsafe(broker.start(), loop).result(START_S)
        except Exception as error:
            raise LinkError(f"the embedded broker did not start on port {port}: {error}") from None
        yield port, websockets
        asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(START_S)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
        loop.close()


async def _make(broker: type[Any], config: dict[str, object]) -> Any:
    return broker(config)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]
