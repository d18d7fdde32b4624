"""Signals of the operator and the service manager become commands in a queue. Handlers only enqueue."""

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def signals_to(commands: "queue.SimpleQueue[Any]") -> Iterator[None]:
    """Turn SIGTERM and SIGINT into "stop" (a second one exits at once) and SIGHUP into "reload"."""
    stopping = False

    def on_stop(signum: int, _: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + signum)
        stopping = True
        commands.put("stop")

    def on_reload(_signum: int, _: FrameType | None) -> None:
        commands.put("reload")

    handlers = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_reload}
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
