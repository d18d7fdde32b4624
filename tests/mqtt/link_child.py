"""A process that connects and waits to be killed."""

import queue
import sys
import threading
from typing import Any

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.mqtt.broker import Broker, Connected, Will
from edge.mqtt.connection import LinkThread
from tests.support.waits import LIMIT_S

inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
LinkThread(
    inbox,
    Broker("127.0.0.1", int(sys.argv[1])),
    client_id="edge.hq.door-03",
    will=Will("edge/v1/hq/door-03/status", b"offline"),
    metrics=Metrics(),
    clock=SystemClock(),
).start()
assert isinstance(inbox.get(timeout=LIMIT_S), Connected)
print("connected", flush=True)
threading.Event().wait()
