"""A door in a process of its own, to be killed: decides at a steady pace and logs what is durable as JSON."""

import sys
import time
from pathlib import Path

from edge.core.process import set_up_logging
from edge.mqtt.broker import Broker
from tests.support.door import Door


def main(directory: Path, port: int) -> None:
    set_up_logging("json", "info")
    door = Door(directory, Broker("127.0.0.1", port, backoff_max_s=0.2))
    while True:
        door.publish()
        time.sleep(0.004)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
