"""The demo's subscriber: prints what a building system would hear, and compares it with what had to come."""

import json
import queue
from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from edge.lab.demo import scenario
from edge.mqtt.contract.topics import Topics
from edge.mqtt.subscriber import Message

QUIET_S = 6.0
"""After the last camera has ended: the track ends, the cool-down passes, `left` is sent."""

POLL_S = 0.25
COLOURS = {"match": "green", "reject": "red", "left": "dim", "no_decision": "yellow"}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was heard, and how the daemon fared."""

    seen: Counter[scenario.Told]
    said: tuple[tuple[str, str], ...]
    """Camera, and what was decided before it, in one line."""
    latencies_ms: tuple[float, ...]
    health: dict[str, Any]
    journal_complete: bool
    exit_code: int
    rss_mb: float

    @property
    def as_expected(self) -> bool:
        """Whether exactly the expected events came, live and in the journal, and the daemon ended well."""
        return self.seen == scenario.EXPECTED and self.journal_complete and self.exit_code == 0

    def table(self) -> Table:
        """Return expected against seen."""
        table = Table("camera", "event", "subject", "expected", "seen", "", title="expected and seen")
        for told in sorted(scenario.EXPECTED.keys() | self.seen.keys()):
            expected, seen = scenario.EXPECTED[told], self.seen[told]
            mark = "[green]ok[/]" if expected == seen else "[red]wrong[/]"
            table.add_row(told[0], told[1], told[2] or "-", str(expected), str(seen), mark)
        return table

    def scenes(self) -> str:
        """Return what was to be seen before each camera, and what was said of it, a line each."""
        lines = []
        for camera, shown in scenario.SHOWN.items():
            lines.append(f"{camera:6} {shown}")
            lines += [f"       {said}" for each, said in self.said if each == camera]
        return "\n".join(lines)

    def summary(self) -> str:
        """Return the figures of the run in a few lines."""
        p50, p95 = np.percentile(self.latencies_ms, (50, 95)) if self.latencies_ms else (np.nan, np.nan)
        counters, stages = self.health.get("counters", {}), self.health.get("stages_ms", {})
        frames = ", ".join(f"{name} {counters.get(f'frames.{name}', 0)}" for name in scenario.CAMERAS)
        loop_ms = stages.get("loop", {}).get("p50", np.nan)
        journal = "complete" if self.journal_complete else "INCOMPLETE"
        return (
            f"capture to decision  p50 {p50:.0f} ms, p95 {p95:.0f} ms\n"
            f"frames               {frames}; one takes {loop_ms:.1f} ms (p50), room for "
            f"{1e3 / loop_ms:.0f}/s\n"
            f"daemon's memory      {self.rss_mb:.0f} MB resident\n"
            f"journal              {journal}; exit code {self.exit_code}\n"
            + ("[green]everything as expected[/]" if self.as_expected else "[red]not as expected[/]")
        )

    def as_json(self) -> dict[str, Any]:
        """Return the result for machines."""
        return {
            "as_expected": self.as_expected,
            "said": [list(each) for each in self.said],
            "seen": [[*told, number] for told, number in sorted(self.seen.items())],
            "expected": [[*told, number] for told, number in sorted(scenario.EXPECTED.items())],
            "capture_to_decision_ms": list(self.latencies_ms),
            "rss_mb": round(self.rss_mb, 1),
            "health": self.health,
            "exit_code": self.exit_code,
        }


class Watcher:
    """Reads messages until the cameras have ended and everybody has left."""

    def __init__(self, messages: "queue.SimpleQueue[Message]", topics: Topics, console: Console) -> None:
        self._messages, self._topics, self._console = messages, topics, console
        self._seen: Counter[scenario.Told] = Counter()
        self._said: list[tuple[str, str]] = []
        self._latencies_ms: list[float] = []
        self._live: set[str] = set()
        self._journal: set[str] = set()
        self._health: dict[str, Any] = {}
        self._online: set[str] = set()
        self._ended: set[str] = set()

    def watch(self, limit_s: float) -> None:
        """Listen until all cameras have ended and it has been quiet since, at most `limit_s`."""
        until_s, heard_s = monotonic() + limit_s, monotonic()
        while monotonic() < until_s:
            if self._hear():
                heard_s = monotonic()
            elif self._ended == set(scenario.CAMERAS) and monotonic() - heard_s > QUIET_S:
                return

    def result(self, exit_code: int, rss_mb: float) -> DemoResult:
        """Read what is still there and sum up."""
        while self._hear():
            continue
        complete = bool(self._journal) and self._journal == self._live
        latencies_ms = tuple(self._latencies_ms)
        said = tuple(self._said)
        return DemoResult(self._seen, said, latencies_ms, self._health, complete, exit_code, rss_mb)

    def _hear(self) -> bool:
        try:
            message = self._messages.get(timeout=POLL_S)
        except queue.Empty:
            return False
        topic, topics = message.topic, self._topics
        for camera in scenario.CAMERAS:
            if topic == topics.camera_status(camera):
                if message.payload == b"online":
                    self._online.add(camera)
                elif camera in self._online:
                    self._ended.add(camera)
            elif topic == topics.journal(camera):
                self._journal.add(json.loads(message.payload)["event_id"])
            elif topic == topics.event(camera):
                self._tell(json.loads(message.payload))
        if topic == topics.health:
            self._health = json.loads(message.payload)
        return True

    def _tell(self, event: dict[str, Any]) -> None:
        self._live.add(event["event_id"])
        subject = event["subject"] or {}
        kind, camera = event["event_type"], event["camera"]
        self._seen[(camera, kind, subject.get("id", ""))] += 1
        latency = (event["latency_ms"] or {}).get("capture_to_decision")
        if latency is not None:
            self._latencies_ms.append(latency)
        score = event["score"] or {}
        numbers = (
            f"score {score['best']:.2f}, threshold {score['threshold']:.2f}" if score.get("best") else ""
        )
        who = subject.get("label") or event["reason"] or ""
        took = f"{latency:.0f} ms after capture" if latency is not None else ""
        face = _face(event["quality"] or {}) if kind != "left" else ""
        if kind != "left":
            self._said.append((camera, f"{kind} {who}: " + ", ".join(filter(None, (numbers, face)))))
        self._console.print(
            f"{event['captured_at'][11:23]} {camera:6} [{COLOURS.get(kind, 'white')}]{kind:11}[/] {who:16} "
            f"{numbers:28} {face:22} {took}",
            soft_wrap=True,
        )


def _face(quality: dict[str, Any]) -> str:
    """Return how large the face was, and how much it was lifted."""
    if not quality:
        return ""
    lifted = f", lifted {quality['lifted']:.0f} times" if quality["lifted"] > 1 else ""
    return f"face {quality['face_px']:.0f} px{lifted}"
