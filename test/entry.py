"""Runs process.py, as the platform runs it."""

import os
import resource
import subprocess
import sys
from pathlib import Path


def command(root: Path, *arguments: object) -> list[str]:
    """The command line."""
    return list(map(str, [sys.executable, root / "process.py", *arguments]))


def run(
    root: Path, *arguments: object, memory_bytes: int = resource.RLIM_INFINITY, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run to the end; ``memory_bytes`` becomes RLIMIT_DATA, the platform's way to state a memory budget."""
    return subprocess.run(
        command(root, *arguments),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes)),
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=600,
        check=False,
    )
