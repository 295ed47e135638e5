"""What a loaded network is to the rest of the program, whatever runs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Batch = NDArray[np.float32] | NDArray[np.uint8]
Output = NDArray[np.float32]


class NetworkFile(NamedTuple):
    """What to load: the ONNX file, and the fixed shape (B, 3, H, W) of its batches.

    With ``takes_pixels``, ``map`` is given RGB bytes (B, H, W, 3) and the network sees (B, 3, H, W) in 0..1. The
    runtime does that on the way: bf16 holds every byte exactly, but of most 255ths only the first three digits.

    With ``decides``, what counts hangs on the numbers, and they are not to depend on the machine: a CPU computes
    them in f32, unless it is told otherwise.
    """

    file: Path
    shape: tuple[int, ...]
    takes_pixels: bool = False
    decides: bool = False


def prepare_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn (B, H, W, 3) RGB bytes into (B, 3, H, W) in 0..1."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


class Network(Protocol):
    """A loaded network: one input, one output, a fixed batch shape."""

    name: str  # runtime, device and precision really in use

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """Run each batch and yield its output with its item, in order, with a few batches in flight."""
        ...
