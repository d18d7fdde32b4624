"""Publishes what is in a file so often a second, until it is killed."""

import sys
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.waits import LIMIT_S


def main(port: int, topic: str, payload: bytes, per_s: int) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    began_s, sent = time.monotonic(), 0
    while True:
        while sent < (time.monotonic() - began_s) * per_s:
            info = client.publish(topic, payload)
            sent += 1
            if sent % 50 == 0:
                info.wait_for_publish(LIMIT_S)
        time.sleep(0.01)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_bytes(), int(sys.argv[4]))
