"""The daemon of one door: start, loop, stop.

Frames: CaptureThread per camera -> LatestFrames -> InferenceThread. Decisions: CourierThread and its outbox.
The main thread waits for what signals and MQTT ask of it. In between it looks after pushes, commands, kept
visits and galleries, feeds the watchdog and publishes health.
"""

import logging
import queue
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from edge.camera.latest import LatestFrames
from edge.core.clock import Clock
from edge.core.errors import EdgeError, FileError, ToldOnce
from edge.core.files import sole_daemon
from edge.core.metrics import Metrics
from edge.core.process import feed_watchdog, sd_notify, signals_to, watchdog_interval_s
from edge.core.threads import Beats, Guard
from edge.core.types import FaceEvent, Frame
from edge.device.assembly.delivery import announcements, build_courier
from edge.device.assembly.departed import departed
from edge.device.assembly.recognizer import build_recognizer
from edge.device.assembly.stores import check_device_key, visit_store
from edge.device.assembly.time import device_clock, follow_sync, time_known
from edge.device.cameras.cameras import Cameras, VisitWriter
from edge.device.cameras.feed import FrameFeed
from edge.device.cameras.snapshots import Snapshots
from edge.device.checkup.left_health import leave_health
from edge.device.commands.executor import CommandExecutor
from edge.device.commands.parse import Rules
from edge.device.commands.verbs import Verbs
from edge.device.galleries import Galleries
from edge.device.pushes.memory import PushMemory
from edge.device.pushes.push import settings_told
from edge.device.pushes.trial import PushState, PushTrial, Seen
from edge.device.reports import Vitals, execution_providers, info, runs_elsewhere
from edge.device.settings.load import Settings, kept
from edge.mqtt.contract.encode import encode, to_millisecond
from edge.mqtt.contract.messages import ConfigReportedPayload, HealthPayload, InfoPayload
from edge.mqtt.contract.problems import DoorProblem
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.inbox import Commanded, Mailbox, ReceivedPush, SyncGallery, TellAgain
from edge.recognition.inference import InferenceThread
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer

log = logging.getLogger(__name__)

TICK_S = 0.25
"""Pause of the main loop in seconds: a changed gallery serves within one."""

HEALTH_S = 60.0
"""Seconds between two reports of `health`."""

PROBLEMS_EVERY_S = 1.0
"""How often it is looked whether problems have come or gone: `health` then tells so at once."""

BIRTH_JITTER_S = 5.0
"""Longest wait in seconds before a building system that has just started is told everything again: doors that
all answer at once would drown it."""

DELIVERY_STOP_S = 2.5
"""Left for deliveries of the 5 s from SIGTERM to the exit; capture takes up to 1.5 s, inference 1 s."""

INFERENCE_STOP_S = 1.0
"""Left of the same for the frame that is looked at."""


@dataclass(frozen=True, slots=True)
class StopDaemon:
    """End: SIGTERM, SIGINT, or the command `restart`."""


@dataclass(frozen=True, slots=True)
class ReloadSettings:
    """Read the configuration anew: SIGHUP, or the command `reload`."""


@dataclass(frozen=True, slots=True)
class ReadMail:
    """Something was asked over MQTT; it lies in the mailbox."""


Order = StopDaemon | ReloadSettings | ReadMail


class Daemon:
    """One door. `memory` reads the configuration anew for a reload, with the pushes that were kept.

    Children get `config_arguments`, so that they read the same settings. Used by the main thread.
    """

    # Made by `_start`:
    _recognizer: Recognizer
    _courier: CourierThread
    _cameras: Cameras
    _snapshots: Snapshots
    _inference: InferenceThread
    _pushes: PushTrial
    _commands: CommandExecutor

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
        self._metrics = metrics
        self._config_arguments = tuple(config_arguments)
        self._clock = device_clock(settings, clock)
        self._time_known = time_known(self._clock, self.settings)
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._mailbox = Mailbox(self._asker(ReadMail()), metrics)
        self._beats = Beats(self._clock.monotonic)
        self._vitals = Vitals(metrics, self._beats, self._clock)
        self._frames = LatestFrames()
        self._visits = VisitWriter(visit_store(settings), metrics, self._clock)
        self._galleries = Galleries(settings, self._config_arguments, metrics=metrics, clock=self._clock)
        self._feed = FrameFeed(settings.state_dir, anonymous=settings.privacy.anonymous, clock=self._clock)
        self._tell_again_s = float("inf")
        self._told_health_s = -float("inf")
        self._told_problems: set[str] = set()
        self._told_providers: dict[str, str] = {}
        self._told = ToldOnce()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            ConfigError, ModelError, KeyFileError, DeviceKeyError: The daemon cannot start as configured.
        """
        with ExitStack() as stack:
            stack.enter_context(sole_daemon(self._settings.state_dir))
            stack.enter_context(signals_to(self._asker(StopDaemon()), self._asker(ReloadSettings())))
            self._start(stack)
            self._tell_ready()
            self._loop()
            sd_notify("STOPPING=1")
            self._tell_health()

    def _start(self, stack: ExitStack) -> None:
        """Build every part and start it; `stack` stops them in reverse: cameras first, the outbox last."""
        stack.callback(self._clock.save)
        self._clock.tick()
        stack.callback(self._galleries.stop)
        check_device_key(self._settings)
        self._recognizer = build_recognizer(self._settings, time_known=self._time_known)
        self._courier = self._build_courier()
        otherwise = "stopped before everything was delivered; the outbox keeps it"
        stack.callback(_stop, self._courier.stop, DELIVERY_STOP_S, otherwise)
        self._tell_info()
        self._courier.publish_documents(announcements(self._settings) | departed(self._settings))
        self._courier.start()
        self._cameras = self._build_cameras()
        topics = Topics(self._settings.site, self._settings.device)
        self._snapshots = Snapshots(
            self._settings,
            lambda camera, jpeg: self._courier.publish_picture(topics.snapshot(camera), jpeg),
            self._metrics,
            self._clock,
        )
        self._inference = self._build_inference()
        stack.callback(self._visits.tick)
        otherwise = "the inference thread did not stop in time"
        stack.callback(_stop, self._inference.stop, INFERENCE_STOP_S, otherwise)
        self._inference.start()
        stack.callback(self._feed.close)
        self._feed.listen()
        stack.callback(self._cameras.stop)
        self._cameras.start()
        self._pushes = PushTrial(self._memory, self, self._metrics, self._clock)
        self._commands = self._build_commands()
        stack.callback(self._commands.stop)

    def _loop(self) -> None:
        """Do what is asked, and what is to be done now and then, until stopped; what fails ends nothing."""
        watchdog_s = watchdog_interval_s()
        fed_s = looked_s = -float("inf")
        asked = Guard("main", self._metrics).attempt
        attempt = Guard("main", self._metrics, self._beats).attempt
        while not isinstance(order := self._next_order(), StopDaemon):
            match order:
                case ReloadSettings():
                    asked("reload", self._reload)
                case ReadMail():
                    asked("request", self._answer)
            attempt("clock", self._clock.tick)
            attempt("push", self._pushes.tick)
            attempt("commands", self._commands.tick)
            attempt("strangers", self._visits.tick)
            attempt("view", self._feed.tick)
            attempt("snapshots", self._snapshots.tick)
            attempt("gallery", self._follow_galleries)
            now_s = self._clock.monotonic()
            if watchdog_s is not None and now_s - fed_s >= watchdog_s:
                fed_s = now_s
                feed_watchdog(self._beats)
            if now_s >= self._tell_again_s:
                self._tell_again_s = float("inf")
                self._courier.tell_again()
            if now_s - looked_s >= PROBLEMS_EVERY_S:
                looked_s = now_s
                attempt("health", self._look_after_health)

    def settings(self) -> Settings:
        """Return the settings in force."""
        return self._settings

    def apply(self, settings: Settings) -> None:
        """Build what the settings ask for beside what runs, then swap.

        Raises:
            EdgeError: It cannot be built; nothing has changed.
        """
        settings, waiting = kept(self._settings, settings)
        recognizer = build_recognizer(settings, denials=self._recognizer.denials, time_known=self._time_known)
        if waiting:
            log.warning("these settings take effect only after a restart", extra={"settings": waiting})
        self._settings = settings
        self._galleries.use(settings)
        self._visits.use(visit_store(settings))
        self._snapshots.use(settings)
        self._cameras.replace(settings, partial(self._inference.swap, recognizer))
        self._swap(recognizer)
        self._courier.publish_documents(announcements(settings) | departed(settings))

    def seen(self) -> Seen:
        """Return how the door does, for a push on trial."""
        now_s, counts = self._clock.monotonic(), self._metrics.counts()
        last_s, steady_s = self._cameras.last_frame_s(), self._cameras.steady_s()
        stall_s = self._settings.capture.stall_s
        return Seen(
            {name: counts.get(f"frames.{name}", 0) for name in last_s},
            {name: steady_s[name] for name, at_s in last_s.items() if at_s and now_s - at_s <= stall_s},
            self._courier.connected,
            self._beats.late(),
        )

    def self_test(self) -> None:
        """Let every model that serves answer its golden input.

        Raises:
            ModelError: One computes something else than it should.
        """
        self._recognizer.self_test()

    def tell(self, told: Mapping[str, Any]) -> None:
        """Publish what became of pushes, as `config/reported` has it but for the time."""
        topic = Topics(self._settings.site, self._settings.device).config_reported
        report = ConfigReportedPayload(at=to_millisecond(self._clock.now()), **told)
        self._courier.publish_documents({topic: encode(report)})

    def _build_courier(self) -> CourierThread:
        return build_courier(
            self._settings,
            self._mailbox.put,
            beats=self._beats,
            metrics=self._metrics,
            clock=self._clock,
            behind=lambda: self._clock.behind,
        )

    def _build_cameras(self) -> Cameras:
        return Cameras(
            self._settings,
            self._frames,
            self._courier.publish_camera_status,
            self._courier.forget_camera,
            beats=self._beats,
            metrics=self._metrics,
            clock=self._clock,
            keep_visit=self._visits.hand_over if self._settings.strangers.keep_hours else None,
        )

    def _build_inference(self) -> InferenceThread:
        return InferenceThread(
            self._frames,
            self._cameras.pipelines,
            self._recognizer,
            self._courier.publish_event,
            beats=self._beats,
            metrics=self._metrics,
            clock=self._clock,
            watch=self._watch,
        )

    def _watch(
        self, frame: Frame, pipeline: Pipeline, recognizer: Recognizer, events: list[FaceEvent]
    ) -> None:
        """Offer a frame that was looked at to whoever shows it; called by the inference thread."""
        self._feed.offer(frame, pipeline, recognizer)
        self._snapshots.notice(frame, events)

    def _build_commands(self) -> CommandExecutor:
        verbs = Verbs(
            settings=self.settings,
            recognizer=lambda: self._recognizer,
            diagnostics=lambda: {
                "info": self._info().model_dump(mode="json"),
                "health": self._health().model_dump(mode="json"),
                "settings": settings_told(self._settings),
            },
            picture=self._cameras.picture,
            sync=partial(self._galleries.request, 0),
            reload=self._asker(ReloadSettings()),
            restart=self._asker(StopDaemon()),
            config_arguments=self._config_arguments,
            show=self._snapshots.show,
        )
        return CommandExecutor(
            Topics(self._settings.site, self._settings.device),
            self._settings.state_dir / "commands",
            lambda: Rules(
                self._settings.commands.trusted_keys,
                self._settings.commands.unsigned_reads,
                self._time_known(),
            ),
            actions=verbs.actions(),
            errands=verbs.errand,
            publish=self._courier.publish_answer,
            metrics=self._metrics,
            clock=self._clock,
            prove=self._clock.prove,
        )

    def _asker(self, order: Order) -> Callable[[], None]:
        """Return what asks the main thread for something; any thread and a signal handler may call it."""
        return partial(self._orders.put, order)

    def _next_order(self) -> Order | None:
        try:
            return self._orders.get(timeout=TICK_S)
        except queue.Empty:
            return None

    def _answer(self) -> None:
        """Do what was asked over MQTT."""
        match self._mailbox.take():
            case SyncGallery() as wanted:
                self._galleries.request(wanted.at_least)
            case ReceivedPush() as push:
                self._pushes.take(push.layer, push.data)
            case Commanded() as command:
                self._commands.take(command.verb, command.received)
            case TellAgain() if self._tell_again_s == float("inf"):
                self._tell_again_s = self._clock.monotonic() + random.uniform(0, BIRTH_JITTER_S)

    def _reload(self) -> None:
        """Put in force what edge.toml says now, and what was pushed; on failure keep the last good."""
        sd_notify("RELOADING=1")
        try:
            self.apply(self._memory.settings())
            log.info("reloaded")
            self._pushes.tell()
        except (EdgeError, OSError) as error:
            self._metrics.count("reload.refused")
            log.error("reload refused, the last good configuration stays: %s", error)
        finally:
            sd_notify("READY=1")

    def _follow_galleries(self) -> None:
        recognizer, news = self._galleries.tick(self._recognizer)
        if recognizer is not None:
            self._swap(recognizer)
        if news:
            follow_sync(self._clock, self._settings)
            self._tell_gallery()

    def _swap(self, recognizer: Recognizer) -> None:
        old, self._recognizer = self._recognizer, recognizer
        self._inference.swap(recognizer)
        if old.remote is not None and old.remote is not recognizer.remote:
            old.remote.close()
        self._tell_info()

    def _tell_info(self) -> None:
        told = self._info()
        self._told_providers = told.execution_providers
        self._courier.publish_info(told)

    def _info(self) -> InfoPayload:
        return info(self._settings, self._recognizer, self._clock, self._memory.version)

    def _health(self) -> HealthPayload:
        return self._vitals.health(
            self._cameras.last_frame_s(),
            self._frames.replaced,
            self._courier.outbox_health(),
            self._courier.link_health(),
            self._problems(),
            self._cameras.problems(),
        )

    def _problems(self) -> list[DoorProblem]:
        """Return what is to be mended beside what `Vitals` finds."""
        rolled_back = self._pushes.state is PushState.ROLLED_BACK
        return [
            *self._galleries.problems(self._recognizer),
            *runs_elsewhere(self._settings, self._recognizer),
            *([DoorProblem.CLOCK_BEHIND] if self._clock.behind else []),
            *([DoorProblem.PUSH_ROLLED_BACK] if rolled_back else []),
        ]

    def _tell_ready(self) -> None:
        sd_notify("READY=1")
        told = {
            "cameras": len(self._cameras.pipelines),
            "embedder": self._recognizer.stamp.embedder,
            "gallery_version": self._recognizer.stamp.gallery_version,
        }
        log.info("ready", extra=told)
        self._tell_gallery()
        self._pushes.tell()

    def _look_after_health(self) -> None:
        """Tell `health` when it is time, and at once when problems have come or gone; `info`, too.

        A model that fails on an accelerator goes on on another.
        """
        now_s = self._clock.monotonic()
        if execution_providers(self._recognizer) != self._told_providers:
            self._tell_info()
        found = self._vitals.problems(
            self._frames.replaced,
            self._courier.outbox_health(),
            self._problems(),
            self._cameras.problems(),
        )
        regular = now_s - self._told_health_s >= HEALTH_S
        if not regular and self._told_problems == {*found, *self._beats.late()}:
            return
        self._tell_health()
        if regular and self._recognizer.candidate is not None:
            self._tell_gallery()

    def _tell_health(self) -> None:
        health = self._health()
        self._told_health_s = self._clock.monotonic()
        self._told_problems = {*health.problems, *health.late}
        self._courier.publish_health(health)
        try:
            leave_health(self._settings, health)
        except FileError as error:
            if self._told.is_new(error):
                log.warning("`edge doctor` cannot see how this daemon does: %s", error)

    def _tell_gallery(self) -> None:
        self._courier.publish_gallery(self._galleries.report(self._recognizer))


def _stop(stop: Callable[[float], bool], limit_s: float, otherwise: str) -> None:
    if not stop(limit_s):
        log.warning(otherwise)
