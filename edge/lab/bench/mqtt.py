"""From decision to subscriber, and how fast a backlog drains, over a real broker on this machine."""

import queue
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from edge import __version__
from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.errors import LinkError
from edge.core.ids import uuid7
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.device.assembly.delivery import build_courier
from edge.device.settings.load import Settings
from edge.fleet.journal.follow import Follower, take_batch, topics
from edge.fleet.journal.gaps import Gaps
from edge.fleet.journal.store import MemoryStore
from edge.lab.bench.delivery import bench_event, measure_delivery, percentiles
from edge.lab.bench.report import machine
from edge.lab.demo.broker import VERSION, embedded_broker
from edge.mqtt.contract.encode import EventEncoder
from edge.mqtt.contract.topics import Topics
from edge.mqtt.delivery.courier import CourierThread
from edge.mqtt.delivery.outbox import Changes, Outbox, Row
from edge.mqtt.subscriber import Listener, Message

TOPICS = Topics("bench", "bench")
GOAL_ROWS, GOAL_S = 10_000, 60.0
"""A backlog of so many decisions has to drain in so many seconds."""

PATIENCE_S = 20.0
"""Without any progress for this long something is broken."""

STOP_S = 5.0
Mode = Literal["puback", "consumer"]


def measure_mqtt(step: Progress, *, decisions: int = 500, rows: int = 10_000) -> dict[str, Any]:
    """Measure with mosquitto where it is installed, else with the embedded broker; returns the JSON document.

    Raises:
        ConfigError: There is neither.
        LinkError: The broker does not start or loses what it was given.
    """
    with _local_broker() as (port, name, version):
        delivered = _decide(port, version, decisions, step)
        drains = {mode: _drain(port, version, rows, mode, step) for mode in ("puback", "consumer")}
    outbox = measure_delivery(step)
    goal_s = GOAL_S * max(1.0, rows / GOAL_ROWS)
    return {
        "schema": "edge.bench-mqtt/1",
        "version": __version__,
        "machine": machine(),
        "broker": name,
        "decisions": decisions,
        "decision_to_subscriber_ms": delivered,
        "encode_ms": outbox["encode_ms"],
        "commit_ms": outbox["commit_ms"],
        "rows": rows,
        "drain": drains,
        "goal": {
            "drain_s": goal_s,
            "met": all(drain["seconds"] <= goal_s for drain in drains.values()),
        },
    }


def _decide(port: int, version: str, decisions: int, step: Progress) -> dict[str, Any]:
    """Publish one decision after another; returns milliseconds until a subscriber has it."""
    event_ms, journal_ms = [], []
    clock = SystemClock()
    with _folder() as folder, _listen(port) as listener, _courier(folder, port, version, "puback") as courier:
        _wait_for(lambda: courier.connected)  # what is decided before is not live
        for number in range(decisions):
            event_id = str(uuid7(clock.now()))
            event = replace(
                bench_event(clock.now()), event_id=event_id, monotonic_s=clock.monotonic(), camera="front"
            )
            begun_s = perf_counter()
            courier.publish_event(event)
            found: dict[str, float] = {}
            while len(found) < 2:
                message = _next(listener)
                if event_id.encode() in message.payload:
                    found[message.topic.rsplit("/", 1)[1]] = (perf_counter() - begun_s) * 1e3
            event_ms.append(found["event"])
            journal_ms.append(found["journal"])
            step("decisions", number + 1, decisions)
    return {"event": percentiles(event_ms), "journal": percentiles(journal_ms)}


def _drain(port: int, version: str, rows: int, mode: Mode, step: Progress) -> dict[str, Any]:
    """Deliver an outbox of `rows` events; returns how long it took until a subscriber had all of them."""
    clock = SystemClock()
    with _folder() as folder, _listen(port) as listener:
        _fill(folder, rows, clock)
        publish = listener.publish if mode == "consumer" else None
        follower = Follower(MemoryStore(), Gaps(), show=lambda _: None, tell=lambda _: None, publish=publish)
        begun_s = perf_counter()
        with _courier(folder, port, version, mode) as courier:
            while follower.tally.new < rows or courier.outbox_health().depth:
                if follower.tally.new < rows:
                    follower.take(take_batch(listener.messages, clock), clock.monotonic())
                else:
                    time.sleep(0.01)
                step(f"drain, {mode}", follower.tally.new, rows)
                if perf_counter() - begun_s > PATIENCE_S + GOAL_S * max(1.0, rows / GOAL_ROWS):
                    raise LinkError(
                        f"drain, {mode}: {courier.outbox_health().depth} of {rows} rows are left after "
                        f"{perf_counter() - begun_s:.0f} s"
                    )
            seconds = perf_counter() - begun_s
    return {
        "seconds": round(seconds, 2),
        "rows_per_s": round(rows / seconds),
        "duplicates": follower.tally.duplicates,
    }


def _fill(folder: Path, rows: int, clock: SystemClock) -> None:
    encoder = EventEncoder(TOPICS.site, TOPICS.device, "boot", clock=lambda: "synced")
    event = replace(bench_event(clock.now()), camera="front")
    puts = {}
    for seq in range(1, rows + 1):
        event_id = str(uuid7(clock.now()))
        payload = encoder.encode(replace(event, event_id=event_id), seq)
        puts[seq] = Row(seq, event_id, TOPICS.journal("front"), payload, 0, 0, vital=True)
    outbox = Outbox.open(folder / "outbox.sqlite", max_rows=rows + 1000, now=clock.now)
    outbox.write(Changes(puts=puts, last_seq=rows))
    outbox.close()


@contextmanager
def _courier(folder: Path, port: int, version: str, mode: Mode) -> Iterator[CourierThread]:
    """Run what the daemon runs for delivery."""
    settings = Settings.model_validate(
        {
            "site": TOPICS.site,
            "device": TOPICS.device,
            "state_dir": folder,
            "mqtt": {"host": "127.0.0.1", "port": port, "version": version},
            "outbox": {"delivery": mode, "max_rows": 1_000_000, "max_mb": 1024},
        }
    )
    courier = build_courier(settings, lambda _: None, beats=Beats(), metrics=Metrics(), clock=SystemClock())
    courier.start()
    try:
        yield courier
    finally:
        courier.stop(STOP_S)


def _listen(port: int) -> Listener:
    journal, _ = topics(TOPICS.site, TOPICS.device)
    return Listener("127.0.0.1", port, (journal, journal.replace("journal", "event")))


def _next(listener: Listener) -> Message:
    try:
        return listener.messages.get(timeout=PATIENCE_S)
    except queue.Empty:
        raise LinkError(f"nothing came from the broker for {PATIENCE_S:.0f} s") from None


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
        yield Path(folder)


@contextmanager
def _local_broker() -> Iterator[tuple[int, str, str]]:
    """Run a broker; yields its port, its name and the protocol to speak with it."""
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(binary).is_file():
        with embedded_broker() as (port, _):
            yield port, "embedded (amqtt)", VERSION
        return
    with _folder() as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        config = folder / "mosquitto.conf"
        # A subscriber that is slower than the drain must not make the broker throw away what it accepted.
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        process = subprocess.Popen([binary, "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(lambda: process.poll() is not None or _answers(port))
            if process.poll() is not None:
                raise LinkError("mosquitto does not start; run `mosquitto -v` to see why")
            yield port, "mosquitto", "5"
        finally:
            process.terminate()
            process.wait(STOP_S)


def _wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + STOP_S
    while not condition():
        if time.monotonic() > until_s:
            raise LinkError(f"the broker does not answer within {STOP_S:.0f} s")
        time.sleep(0.01)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def as_text(report: dict[str, Any]) -> str:
    """Return a report for people."""
    lines = [f"broker: {report['broker']}; {report['decisions']} decisions, one after the other"]
    for topic, figures in report["decision_to_subscriber_ms"].items():
        lines.append(f"decision -> {topic}: p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms")
    commit = report["commit_ms"]
    lines.append(f"outbox commit: p50 {commit['p50']:.2f} ms, p99 {commit['p99']:.2f} ms")
    for mode, drain in report["drain"].items():
        lines.append(
            f"drain of {report['rows']:,} rows, delivery = {mode}: {drain['seconds']:.1f} s, "
            f"{drain['rows_per_s']:,} rows/s, {drain['duplicates']} duplicates"
        )
    lines.append(
        f"goal: drained in {report['goal']['drain_s']:.0f} s: {'yes' if report['goal']['met'] else 'NO'}"
    )
    return "\n".join(lines)
