"""Runs process.py, as the platform runs it, and `mitosis detect`, as a user does."""

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


def start_detect(*arguments: object) -> subprocess.Popen[str]:
    """Start `mitosis detect` on a terminal wide enough for its table."""
    command = [sys.executable, "-m", "mitosis.cli", "detect", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "250", "NO_COLOR": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def detect(*arguments: object) -> tuple[int, str]:
    """Run `mitosis detect` to the end; returns its exit code and stderr."""
    process = start_detect(*arguments)
    _, err = process.communicate(timeout=300)
    return process.returncode, err
