"""The peak memory of this process."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mb() -> float:
    """Return the most memory this process has held (Linux's VmHWM), in MB.

    Not ``getrusage``: its ``ru_maxrss`` keeps the peak of the parent that started the process.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if not found:
        raise SystemExit("peak memory is read from /proc/self/status, which this system has not")
    return int(found[1]) / 1024
