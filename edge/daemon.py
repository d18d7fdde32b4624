"""Daemon: start, main loop, reload, stop. The only wiring of threads.

Frames: CaptureThread per camera -> LatestFrames -> InferenceThread. Decisions: Outbox and Courier. The main
thread only waits for commands, watches the gallery's version, feeds the watchdog and publishes health.
"""

import logging
import queue
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from edge.assembly import beside_store, build_beside, build_recognizer, gallery_store
from edge.camera.latest import LatestFrames
from edge.cameras import Cameras
from edge.clock import Clock, SystemClock
from edge.config import Settings
from edge.delivery import build_courier, discovery_documents
from edge.errors import EdgeError
from edge.following import BesideFollower, GalleryFollower
from edge.health import Beats, feed_watchdog, sd_notify, watchdog_interval_s
from edge.inference import InferenceThread
from edge.instance import sole_daemon
from edge.metrics import Metrics
from edge.mqtt.courier import CourierThread
from edge.mqtt.incoming import Request, SyncGallery, TellAgain
from edge.recognizer import Recognizer
from edge.selection import AUTO
from edge.signals import signals_to
from edge.syncing import SYNC_COMMAND, SyncRunner, beside_report, gallery_report
from edge.vitals import Vitals, info

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
    revoked_applied_at: datetime | None = None
    outcome: dict[str, Any] = field(default_factory=lambda: {"status": "current"})


class Daemon:
    """One device. `read_settings` reads the configuration anew for a reload."""

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings] | None = None,
        *,
        sync_command: Sequence[str] = SYNC_COMMAND,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._read_settings = read_settings or (lambda: settings)
        self._clock = clock or SystemClock()
        self._commands: queue.SimpleQueue[str | Request] = queue.SimpleQueue()
        self._beats = Beats(self._clock.monotonic)
        self.metrics = Metrics()
        self._vitals = Vitals(self.metrics, self._beats, self._clock)
        self._syncing = SyncRunner(sync_command, metrics=self.metrics, clock=self._clock)
        self._frames = LatestFrames()
        self._follower = GalleryFollower(gallery_store(settings), self.metrics)
        self._beside = _beside_follower(settings)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            ConfigError, ModelError: The daemon cannot start as configured.
        """
        with ExitStack() as stack:
            stack.enter_context(sole_daemon(self._settings.state_dir))
            stack.enter_context(signals_to(self._commands))
            stack.callback(self._syncing.stop)
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
            self._tell_gallery(running.outcome, running)
            self._loop(running)
            sd_notify("STOPPING=1")
            self._tell_health(running)

    def _start(self, stack: ExitStack) -> _Running:
        """Build everything and start the threads; `stack` takes them down in reverse, capture first."""
        recognizer = build_recognizer(self._settings)
        courier = build_courier(
            self._settings, self._commands.put, beats=self._beats, metrics=self.metrics, clock=self._clock
        )
        stack.callback(self._stop_courier, courier)
        courier.publish_info(info(self._settings, recognizer, self._clock))
        courier.publish_documents(discovery_documents(self._settings))
        courier.start()
        cameras = Cameras(
            self._settings,
            self._frames,
            courier.publish_camera_status,
            beats=self._beats,
            metrics=self.metrics,
            clock=self._clock,
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
        stack.callback(self._stop_inference, inference)
        inference.start()
        stack.callback(cameras.stop)
        cameras.start()
        return _Running(recognizer, courier, inference, cameras)

    def _loop(self, running: _Running) -> None:
        watchdog_s = watchdog_interval_s()
        fed_s = published_s = -float("inf")
        again_s = float("inf")
        while True:
            match self._next_command():
                case "stop":
                    return
                case "reload":
                    self._reload(running)
                case SyncGallery() as wanted:
                    self._syncing.request(wanted.at_least)
                case TellAgain():
                    # Doors that all answer at once would drown a building system that has just started.
                    again_s = self._clock.monotonic() + random.uniform(0, BIRTH_JITTER_S)
            outcome = self._syncing.poll()
            if self._follow_gallery(running) and outcome is None:
                outcome = {"status": "updated"}
            if outcome is not None:
                self._tell_gallery(outcome, running)
            now_s = self._clock.monotonic()
            if watchdog_s is not None and now_s - fed_s >= watchdog_s:
                fed_s = now_s
                feed_watchdog(self._beats)
            if now_s >= again_s:
                again_s = float("inf")
                running.courier.tell_again()
            if now_s - published_s >= HEALTH_S:
                published_s = now_s
                self._tell_health(running)
                if running.recognizer.beside is not None:
                    self._tell_gallery(running.outcome, running)

    def _next_command(self) -> str | Request | None:
        try:
            return self._commands.get(timeout=TICK_S)
        except queue.Empty:
            return None

    def _tell_gallery(self, outcome: dict[str, Any], running: _Running) -> None:
        running.outcome = outcome
        beside = running.recognizer.beside
        report = gallery_report(
            outcome,
            running.recognizer.matcher.gallery,
            self._clock.now(),
            revoked_applied_at=running.revoked_applied_at,
            beside=None if beside is None else beside_report(beside, self.metrics.counts()),
        )
        running.courier.publish_gallery(report)

    def _follow_gallery(self, running: _Running) -> bool:
        """Swap to the gallery's current version if it is another one; on failure keep the last good."""
        auto = self._settings.recognition.embedder == AUTO
        rebuild = partial(build_recognizer, self._settings) if auto else None
        recognizer = self._follower.follow(running.recognizer, rebuild)
        tried = self._beside.follow(recognizer or running.recognizer)
        if recognizer is None and tried is None:
            return False
        before = running.recognizer.matcher.gallery
        recognizer = tried or recognizer or running.recognizer
        self._swap(running, recognizer)
        if before.active - recognizer.matcher.gallery.active:
            running.revoked_applied_at = self._clock.now()
        return True

    def _swap(self, running: _Running, recognizer: Recognizer) -> None:
        old, running.recognizer = running.recognizer, recognizer
        running.inference.swap(recognizer)
        if old.elsewhere is not None and old.elsewhere is not recognizer.elsewhere:
            old.elsewhere.close()
        running.courier.publish_info(info(self._settings, recognizer, self._clock))

    def _reload(self, running: _Running) -> None:
        """Build what the new settings ask for beside what runs, then swap; on failure keep the last good."""
        sd_notify("RELOADING=1")
        try:
            settings = self._read_settings()
            kept = ("site", "device", "state_dir", "models_dir", "mqtt", "outbox", "privacy", "log")
            changed = [key for key in kept if getattr(settings, key) != getattr(self._settings, key)]
            recognizer = build_recognizer(settings)
        except EdgeError as error:
            self.metrics.count("reload.refused")
            log.error("reload refused, the last good configuration stays: %s", error)
        else:
            if changed:
                log.warning("these settings take effect only after a restart", extra={"settings": changed})
                settings = settings.model_copy(update={key: getattr(self._settings, key) for key in kept})
            old, self._settings = self._settings, settings
            self._beside = _beside_follower(settings)
            running.cameras.replace(settings, partial(running.inference.swap, recognizer))
            self._swap(running, recognizer)
            gone = discovery_documents(old).keys() - discovery_documents(settings).keys()
            documents = dict.fromkeys(gone, b"") | discovery_documents(settings)
            running.courier.publish_documents(documents)
            log.info("reloaded")
        sd_notify("READY=1")

    def _tell_health(self, running: _Running) -> None:
        courier = running.courier
        health = self._vitals.health(
            running.cameras.last_frame_s(),
            self._frames.replaced,
            courier.outbox_health(),
            courier.link_health(),
        )
        courier.publish_health(health)

    def _stop_courier(self, courier: CourierThread) -> None:
        if not courier.stop(DELIVERY_STOP_S):
            log.warning("stopped before everything was delivered; the outbox keeps it")

    def _stop_inference(self, inference: InferenceThread) -> None:
        if not inference.stop(1.0):
            log.error("the inference thread did not stop in time")


def _beside_follower(settings: Settings) -> BesideFollower:
    share = settings.gallery.shadow_share
    return BesideFollower(beside_store(settings), partial(build_beside, settings), share)
