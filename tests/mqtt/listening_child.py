"""A door in a process of its own that listens, decides ten times a second, and says what it heard."""

import sys
import time
from pathlib import Path

from edge.core.process import return_freed_memory, set_up_logging
from edge.mqtt.broker import Broker
from tests.support.door import TOPICS, Door


def main(directory: Path, port: int, version: str, *options: str) -> None:
    return_freed_memory()
    set_up_logging("json", "info")
    door = Door(
        directory,
        Broker("127.0.0.1", port, version=version, backoff_max_s=0.2),  # type: ignore[arg-type]
        subscriptions=(TOPICS.config_desired("device"),),
        consumer="consumer" in options,
    )
    while True:
        door.publish()
        until_s = time.monotonic() + 0.1
        while time.monotonic() < until_s:
            while door.heard:
                print(len(door.heard.pop(0).payload), flush=True)
            time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
