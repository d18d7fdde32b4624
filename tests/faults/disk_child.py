"""A door in a process of its own: decides so often, says which event it was, and ends when told to."""

import sys
import time
from pathlib import Path

from edge.mqtt.broker import Broker
from edge.mqtt.delivery import outbox_thread
from tests.support.door import Door


def main(directory: Path, port: int, count: int) -> None:
    outbox_thread.RETRY_S = 0.05
    door = Door(directory, Broker("127.0.0.1", port, backoff_max_s=0.2))
    for _ in range(count):
        print(*door.publish(), flush=True)
        time.sleep(0.01)
    print("done", flush=True)
    sys.stdin.read()
    counts = door.metrics.counts()
    failures = counts.get("outbox.failures", 0) + counts.get("outbox.reopened", 0)
    print(failures, counts.get("outbox.dropped", 0), flush=True)
    door.courier.stop(5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
