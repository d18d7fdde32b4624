"""What steers a running daemon from outside, put together: configuration pushes and commands over MQTT."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.process import Beats
from edge.device.cameras import Cameras
from edge.device.commands.desk import CommandDesk, CommandFiles
from edge.device.commands.parse import Rules
from edge.device.commands.verbs import Door, actions, errand
from edge.device.pushes.desk import ConfigDesk
from edge.device.pushes.probation import Seen
from edge.device.pushes.trial import PushRunner
from edge.device.settings.load import Settings
from edge.mqtt.contract.encode import encode, to_millisecond
from edge.mqtt.contract.payloads_config import ConfigReportedPayload
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread


@dataclass(frozen=True, slots=True)
class Parts:
    """What both need of a running daemon; `settings` returns those in force."""

    settings: Callable[[], Settings]
    cameras: Cameras
    courier: CourierThread
    beats: Beats
    metrics: Metrics
    clock: Clock


def build_push_runner(
    desk: ConfigDesk, parts: Parts, apply: Callable[[Settings], None], self_test: Callable[[], None]
) -> PushRunner:
    """Return what takes configuration pushes; `apply` and `self_test` as in `PushRunner`."""
    settings = parts.settings()
    topic = Topics(settings.site, settings.device).config_reported

    def publish(told: dict[str, Any]) -> None:
        report = ConfigReportedPayload(at=to_millisecond(parts.clock.now()), **told)
        parts.courier.publish_documents({topic: encode(report)})

    def seen() -> Seen:
        now_s, counts = parts.clock.monotonic(), parts.metrics.counts()
        last_s = parts.cameras.last_frame_s()
        stall_s = parts.settings().capture.stall_s
        return Seen(
            {name: counts.get(f"frames.{name}", 0) for name in last_s},
            frozenset(name for name, at_s in last_s.items() if at_s and now_s - at_s <= stall_s),
            parts.courier.connected,
            parts.beats.late(),
        )

    return PushRunner(
        desk,
        apply=apply,
        settings=parts.settings,
        seen=seen,
        self_test=self_test,
        publish=publish,
        clock=parts.clock,
    )


def build_command_desk(parts: Parts, door: Door, config_arguments: Sequence[str]) -> CommandDesk:
    """Return what takes commands.

    Raises:
        ConfigError: What is remembered of commands is damaged.
    """
    settings = parts.settings()

    def rules() -> Rules:
        values = parts.settings().commands
        return Rules(values.trusted_keys, values.unsigned_reads)

    return CommandDesk(
        Topics(settings.site, settings.device),
        CommandFiles(settings.state_dir / "commands"),
        rules,
        actions=actions(door),
        errands=partial(errand, door, config_arguments),
        publish=parts.courier.publish_answer,
        metrics=parts.metrics,
        clock=parts.clock,
    )
