"""A door in a process of its own that listens, decides ten times a second, and says what it heard."""

import sys
import time
from pathlib import Path

from edge import logs
from edge.mqtt.broker import Broker
from tests.mqtt.door import TOPICS, Door


def main(directory: Path, port: int, version: str) -> None:
    logs.set_up("json", "info")
    door = Door(
        directory,
        Broker("127.0.0.1", port, version=version, backoff_max_s=0.2),  # type: ignore[arg-type]
        subscriptions=(TOPICS.config_desired("device"),),
    )
    told = 0
    while True:
        door.publish()
        time.sleep(0.1)
        for received in door.heard[told:]:
            print(len(received.payload), flush=True)
        told = len(door.heard)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
