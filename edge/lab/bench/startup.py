"""How long the daemon takes to be ready, and how much memory it holds: measured on a real process."""

import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Any

from edge.core.download import Progress
from edge.core.errors import EdgeError
from edge.core.process import rss_mb
from edge.device.settings.load import Settings
from edge.lab.demo.broker import VERSION, embedded_broker
from edge.lab.demo.device import daemon_process, enrol_all, write_config
from edge.lab.demo.media import media_dir

LIMIT_S = 30.0
SETTLE_S = 4.0
"""Of frames and decisions before the memory is read."""


def measure_start(settings: Settings, rounds: int, step: Progress) -> dict[str, Any]:
    """Start the daemon `rounds` times on a clip; returns seconds until ready and connected, and MB resident.

    Raises:
        EdgeError: The daemon does not come up.
    """
    ready_s, connected_s, memory_mb = [], [], []
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder, embedded_broker() as (port, _):
        work = Path(folder)
        clip = media_dir(settings) / "WolfgangLanger_Pexels.mp4"
        config = write_config(work, settings, {"front": clip}, "127.0.0.1", port, mqtt=VERSION)
        enrol_all(settings, work / "state", media_dir(settings), step)
        for number in range(rounds):
            ready, connected, memory = _start_once(config)
            ready_s.append(ready)
            connected_s.append(connected)
            memory_mb.append(memory)
            step("start", number + 1, rounds)
    return {
        "ready_s": round(median(ready_s), 3),
        "connected_s": round(median(connected_s), 3),
        "rss_mb": round(max(memory_mb), 1),
    }


def _start_once(config: Path) -> tuple[float, float, float]:
    begun_s = monotonic()
    seen: dict[str, float] = {}
    with daemon_process(config, stderr=subprocess.PIPE) as process:
        if process.stderr is None:
            raise EdgeError("the daemon's log cannot be read")
        for line in process.stderr:
            message = json.loads(line)["message"] if line.startswith(b"{") else ""
            if message == "ready":
                seen["ready"] = monotonic() - begun_s
            elif message.startswith("connected to the broker"):
                seen["connected"] = monotonic() - begun_s
            if len(seen) == 2:
                sleep(SETTLE_S)
                memory_mb = rss_mb(process.pid)
                process.terminate()
                process.communicate(timeout=LIMIT_S)
                return seen["ready"], seen["connected"], memory_mb
    raise EdgeError("the daemon ended before it was ready; try `edge check`")
