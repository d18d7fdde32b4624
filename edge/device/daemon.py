"""Daemon: start, main loop, reload, stop. The only wiring of threads.

Frames: CaptureThread per camera -> LatestFrames -> InferenceThread. Decisions: Outbox and Courier. The main
thread only waits for commands, watches the gallery's version, feeds the watchdog and publishes health.

What steers a running daemon from outside, put together: configuration pushes and commands over MQTT.
"""

import logging
import queue
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from edge.camera.latest import LatestFrames
from edge.core.clock import Clock, SystemClock
from edge.core.errors import EdgeError
from edge.core.files import sole_daemon
from edge.core.metrics import Metrics
from edge.core.process import feed_watchdog, sd_notify, signals_to, watchdog_interval_s
from edge.core.threads import Beats, Guard
from edge.device.assembly.delivery import announcements, build_courier
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import visit_store
from edge.device.cameras import Cameras
from edge.device.commands.desk import CommandDesk, CommandFiles
from edge.device.commands.parse import Rules
from edge.device.commands.verbs import Door, actions, errand
from edge.device.galleries import GalleryKeeper
from edge.device.kept_visits import StrangerKeeper
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.trial import PushTrial, Seen
from edge.device.reports import Vitals, info
from edge.device.settings.load import Settings, kept
from edge.device.sync.child import SYNC_COMMAND
from edge.mqtt.contract.encode import encode, to_millisecond
from edge.mqtt.contract.messages import ConfigReportedPayload, HealthPayload, InfoPayload
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.inbox import Commanded, Mailbox, ReceivedPush, SyncGallery, TellAgain
from edge.recognition.inference import InferenceThread
from edge.recognition.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class Parts:
    """What both need of a running daemon; `settings` returns those in force."""

    settings: Callable[[], Settings]
    cameras: Cameras
    courier: CourierThread
    beats: Beats
    metrics: Metrics
    clock: Clock


@dataclass(frozen=True, slots=True)
class SteeredDaemon:
    """The running daemon as a push on trial knows it (`RunningDaemon`)."""

    parts: Parts
    apply: Callable[[Settings], None]
    self_test: Callable[[], None]

    def settings(self) -> Settings:
        """Return the settings in force."""
        return self.parts.settings()

    def seen(self) -> Seen:
        """Return how the door does."""
        parts = self.parts
        now_s, counts = parts.clock.monotonic(), parts.metrics.counts()
        last_s = parts.cameras.last_frame_s()
        stall_s = parts.settings().capture.stall_s
        return Seen(
            {name: counts.get(f"frames.{name}", 0) for name in last_s},
            frozenset(name for name, at_s in last_s.items() if at_s and now_s - at_s <= stall_s),
            parts.courier.connected,
            parts.beats.late(),
        )

    def tell(self, told: Mapping[str, Any]) -> None:
        """Publish what became of pushes."""
        settings = self.settings()
        topic = Topics(settings.site, settings.device).config_reported
        report = ConfigReportedPayload(at=to_millisecond(self.parts.clock.now()), **told)
        self.parts.courier.publish_documents({topic: encode(report)})


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


log = logging.getLogger(__name__)

TICK_S = 0.25
"""Pause of the main loop: a changed gallery serves within a second."""

HEALTH_S = 60.0
BIRTH_JITTER_S = 5.0
DELIVERY_STOP_S = 2.5
"""Left for deliveries of the 5 s from SIGTERM to the exit; capture takes up to 1.5 s, inference 1 s."""


@dataclass(slots=True)
class _Running:
    """What `start` made and `stop` takes down."""

    recognizer: Recognizer
    courier: CourierThread
    inference: InferenceThread
    cameras: Cameras
    pushes: PushTrial = field(init=False)
    commands: CommandDesk = field(init=False)


class Daemon:
    """One device. `memory` reads the configuration anew for a reload, with the pushes that were kept.

    Children are started with `config_arguments`, so that they read the same.
    """

    def __init__(
        self,
        settings: Settings,
        memory: PushMemory,
        *,
        metrics: Metrics,
        config_arguments: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._clock = clock or SystemClock()
        self._commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._mailbox = Mailbox(partial(self._commands.put, "mail"), metrics)
        self._again_s = float("inf")
        self._beats = Beats(self._clock.monotonic)
        self.metrics = metrics
        self._vitals = Vitals(self.metrics, self._beats, self._clock)
        self._frames = LatestFrames()
        self._strangers = StrangerKeeper(visit_store(settings), metrics, self._clock)
        self._config_arguments = tuple(config_arguments)
        self._galleries = GalleryKeeper(
            settings, (*SYNC_COMMAND, *config_arguments), metrics=metrics, clock=self._clock
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            ConfigError, ModelError: The daemon cannot start as configured.
        """
        with ExitStack() as stack:
            stack.enter_context(sole_daemon(self._settings.state_dir))
            stack.enter_context(signals_to(self._commands))
            stack.callback(self._galleries.stop)
            running = self._start(stack)
            sd_notify("READY=1")
            log.info(
                "ready",
                extra={
                    "cameras": len(running.cameras.pipelines),
                    "embedder": running.recognizer.stamp.embedder,
                    "gallery_version": running.recognizer.stamp.gallery_version,
                },
            )
            self._tell_gallery(running)
            running.pushes.tell()
            self._loop(running)
            sd_notify("STOPPING=1")
            self._tell_health(running)

    def _start(self, stack: ExitStack) -> _Running:
        """Build everything and start the threads; `stack` takes them down in reverse, capture first."""
        recognizer = build_recognizer(self._settings)
        courier = build_courier(
            self._settings,
            self._mailbox.put,
            beats=self._beats,
            metrics=self.metrics,
            clock=self._clock,
        )
        otherwise = "stopped before everything was delivered; the outbox keeps it"
        stack.callback(self._stop, courier.stop, DELIVERY_STOP_S, otherwise)
        courier.publish_info(self._info(recognizer))
        courier.publish_documents(announcements(self._settings))
        courier.start()
        cameras = Cameras(
            self._settings,
            self._frames,
            courier.publish_camera_status,
            beats=self._beats,
            metrics=self.metrics,
            clock=self._clock,
            keep_visit=self._strangers.hand_over if self._settings.strangers.keep_hours else None,
        )
        inference = InferenceThread(
            self._frames,
            cameras.pipelines,
            recognizer,
            courier.publish_event,
            beats=self._beats,
            metrics=self.metrics,
            clock=self._clock,
        )
        stack.callback(self._strangers.tick)
        stack.callback(self._stop, inference.stop, 1.0, "the inference thread did not stop in time")
        inference.start()
        stack.callback(cameras.stop)
        cameras.start()
        running = _Running(recognizer, courier, inference, cameras)
        self._steer(running)
        stack.callback(running.commands.stop)
        return running

    def _loop(self, running: _Running) -> None:
        """Do what is asked, and what is to be done now and then, until stopped; what fails ends nothing."""
        watchdog_s = watchdog_interval_s()
        fed_s = published_s = -float("inf")
        asked, attempt = Guard("main", self.metrics).attempt, Guard("main", self.metrics, self._beats).attempt
        while (command := self._next_command()) != "stop":
            if command == "reload":
                asked("reload", partial(self._reload, running))
            elif command == "mail":
                asked("request", partial(self._answer, running))
            attempt("push", running.pushes.tick)
            attempt("commands", running.commands.tick)
            attempt("strangers", self._strangers.tick)
            attempt("gallery", partial(self._follow, running))
            now_s = self._clock.monotonic()
            if watchdog_s is not None and now_s - fed_s >= watchdog_s:
                fed_s = now_s
                feed_watchdog(self._beats)
            if now_s >= self._again_s:
                self._again_s = float("inf")
                running.courier.tell_again()
            if now_s - published_s >= HEALTH_S:
                published_s = now_s
                attempt("health", partial(self._tell_health, running))
                if running.recognizer.candidate is not None:
                    attempt("report", partial(self._tell_gallery, running))

    def _answer(self, running: _Running) -> None:
        """Do what was asked over MQTT."""
        match self._mailbox.take():
            case SyncGallery() as wanted:
                self._galleries.request(wanted.at_least)
            case ReceivedPush() as push:
                running.pushes.take(push.layer, push.data)
            case Commanded() as command:
                running.commands.take(command.verb, command.received)
            case TellAgain() if self._again_s == float("inf"):
                # Doors that all answer at once would drown a building system that has just started.
                self._again_s = self._clock.monotonic() + random.uniform(0, BIRTH_JITTER_S)

    def _follow(self, running: _Running) -> None:
        recognizer, news = self._galleries.tick(running.recognizer)
        if recognizer is not None:
            self._swap(running, recognizer)
        if news:
            self._tell_gallery(running)

    def _next_command(self) -> str | None:
        try:
            return self._commands.get(timeout=TICK_S)
        except queue.Empty:
            return None

    def _info(self, recognizer: Recognizer) -> InfoPayload:
        return info(self._settings, recognizer, self._clock, self._memory.version)

    def _tell_gallery(self, running: _Running) -> None:
        running.courier.publish_gallery(self._galleries.report(running.recognizer))

    def _swap(self, running: _Running, recognizer: Recognizer) -> None:
        old, running.recognizer = running.recognizer, recognizer
        running.inference.swap(recognizer)
        if old.remote is not None and old.remote is not recognizer.remote:
            old.remote.close()
        running.courier.publish_info(self._info(recognizer))

    def _reload(self, running: _Running) -> None:
        """Put in force what edge.toml says now, and what was pushed; on failure keep the last good."""
        sd_notify("RELOADING=1")
        try:
            self._apply(running, self._memory.settings())
            log.info("reloaded")
            running.pushes.tell()
        except (EdgeError, OSError) as error:
            self.metrics.count("reload.refused")
            log.error("reload refused, the last good configuration stays: %s", error)
        finally:
            sd_notify("READY=1")

    def _apply(self, running: _Running, settings: Settings) -> None:
        """Build what the settings ask for beside what runs, then swap.

        Raises:
            EdgeError: It cannot be built; nothing has changed.
        """
        settings, waiting = kept(self._settings, settings)
        recognizer = build_recognizer(settings, denials=running.recognizer.denials)
        if waiting:
            log.warning("these settings take effect only after a restart", extra={"settings": waiting})
        self._settings = settings
        self._galleries.use(settings)
        self._strangers.use(visit_store(settings))
        running.cameras.replace(settings, partial(running.inference.swap, recognizer))
        self._swap(running, recognizer)
        running.courier.publish_documents(announcements(settings))

    def _steer(self, running: _Running) -> None:
        """Let the daemon be steered from outside."""
        parts = Parts(
            lambda: self._settings, running.cameras, running.courier, self._beats, self.metrics, self._clock
        )
        door = Door(
            settings=parts.settings,
            gallery=lambda: running.recognizer.matcher.gallery,
            embedder=lambda: running.recognizer.stamp.embedder,
            diagnostics=lambda: {
                "info": self._info(running.recognizer).model_dump(mode="json"),
                "health": self._health(running).model_dump(mode="json"),
            },
            picture=running.cameras.picture,
            sync=partial(self._galleries.request, 0),
            reload=partial(self._commands.put, "reload"),
            restart=partial(self._commands.put, "stop"),
        )
        apply, test = partial(self._apply, running), lambda: running.recognizer.self_test()
        steered = SteeredDaemon(parts, apply, test)
        running.pushes = PushTrial(self._memory, steered, self.metrics, self._clock)
        running.commands = build_command_desk(parts, door, self._config_arguments)

    def _tell_health(self, running: _Running) -> None:
        running.courier.publish_health(self._health(running))

    def _health(self, running: _Running) -> HealthPayload:
        courier = running.courier
        return self._vitals.health(
            running.cameras.last_frame_s(),
            self._frames.replaced,
            courier.outbox_health(),
            courier.link_health(),
        )

    def _stop(self, stop: Callable[[float], bool], limit_s: float, otherwise: str) -> None:
        if not stop(limit_s):
            log.warning(otherwise)
