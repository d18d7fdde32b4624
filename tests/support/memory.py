"""How much memory another process has used."""

import re
from pathlib import Path


def peak_mb(pid: int) -> float:
    """The most that was ever resident, in MiB. Source: proc(5), VmHWM."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024
