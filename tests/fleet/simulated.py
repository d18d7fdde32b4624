"""A fleet of devices without cameras: real pushes, real connections, one thread for all of them."""

import selectors
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.core.metrics import Metrics
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.push import Patch
from edge.device.pushes.trial import PushTrial, Seen
from edge.device.settings import load as config
from edge.device.settings.load import Settings
from edge.mqtt.broker import Fault
from edge.mqtt.connection import Reconnect
from edge.mqtt.contract.encode import encode
from edge.mqtt.contract.messages import ConfigReportedPayload
from edge.mqtt.contract.topics import Topics
from tests.support.clock import SteppedClock


class SimulatedDevice:
    """What a daemon does with a push, but for frames: every push proves itself at once."""

    def __init__(
        self, directory: Path, number: int, port: int, trusted: str, groups: tuple[str, ...] = ()
    ) -> None:
        self.name = f"door-{number:04}"
        self.topics = Topics("test", self.name)
        self.overrides: dict[str, Any] = {
            "site": "test",
            "device": self.name,
            "state_dir": str(directory / self.name),
            "push": {"trusted_keys": [trusted], "groups": list(groups)},
        }
        self.layers = ("fleet", *(f"group:{group}" for group in groups), "device")
        self.reconnect = Reconnect(self.topics.client_id, 60.0)
        self.port = port
        self.due_s = 0.0
        self.client = self._client()
        self.clock = SteppedClock()
        self.in_force = self.read({})
        self.memory = PushMemory(self.read)
        self.trial = PushTrial(self.memory, self, Metrics(), self.clock)

    def read(self, patch: Patch) -> Settings:
        return config.load(overrides=self.overrides | patch)

    def settings(self) -> Settings:
        return self.in_force

    def apply(self, settings: Settings) -> None:
        self.in_force = settings

    def seen(self) -> Seen:
        return Seen({}, {}, True)

    def self_test(self) -> None:
        pass

    def tell(self, told: Mapping[str, Any]) -> None:
        report = ConfigReportedPayload(at=self.clock.now(), **told)
        self.client.publish(self.topics.config_reported, encode(report), 1, retain=True)

    def _client(self) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2, self.topics.client_id, clean_session=False, protocol=paho.MQTTv311
        )
        client.will_set(self.topics.status, b"offline", 1, retain=True)
        client.on_connect = self._connected
        client.on_message = self._heard
        return client

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(self.topics.config_desired(layer), 1) for layer in self.layers])
        client.publish(self.topics.status, b"online", 1, retain=True)
        self.trial.tell()

    def _heard(self, client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        layers = {self.topics.config_desired(layer): layer for layer in self.layers}
        self.trial.take(layers[message.topic], message.payload)
        self.clock.now_s += self.in_force.push.probation_s
        self.trial.tick()


class Fleet:
    """Connects devices and serves them until told to stop; comes back after an outage as the daemon does."""

    def __init__(self, devices: list[SimulatedDevice]) -> None:
        self.devices = devices
        self._selector = selectors.DefaultSelector()

    def connect(self, device: SimulatedDevice) -> bool:
        try:
            device.client.connect("127.0.0.1", device.port, keepalive=300)
        except OSError:
            return False
        self._selector.register(device.client.socket(), selectors.EVENT_READ, device)
        return True

    def serve(self, timeout_s: float) -> list[SimulatedDevice]:
        """Handle what has come in; returns the devices whose connection has ended."""
        lost = []
        for key, _ in self._selector.select(timeout_s):
            device: SimulatedDevice = key.data
            if device.client.loop_read(10) != paho.MQTT_ERR_SUCCESS:
                self._selector.unregister(key.fileobj)
                lost.append(device)
        for device in self.devices:
            if device.client.want_write():
                device.client.loop_write()
        return lost

    def come_back(self, lost: list[SimulatedDevice], timeout_s: float) -> Counter[int]:
        """Let lost devices reconnect with the daemon's own pauses; returns how many chose which second.

        How late this machine lets them is no part of it.
        """
        began_s = time.monotonic()
        fault = Fault("connection lost")
        waiting = {d: began_s + d.reconnect.pause_s(fault, 3600.0) for d in lost}
        when: Counter[int] = Counter()
        while waiting and time.monotonic() - began_s < timeout_s:
            now_s = time.monotonic()
            for device in [device for device, due_s in waiting.items() if due_s <= now_s]:
                if self.connect(device):
                    when[int(waiting.pop(device) - began_s)] += 1
                else:
                    waiting[device] = now_s + device.reconnect.pause_s(fault, None)
            self.serve(0.01)
        assert not waiting
        return when

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.client.disconnect()
            self._selector.unregister(key.fileobj)
        self._selector.close()
