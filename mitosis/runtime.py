"""Runs an ONNX network. OpenVINO on a CPU; ONNX Runtime with CUDA or TensorRT, which we have not run on a GPU."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import openvino
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.errors import BundleError, RuntimeUnavailableError

Item = TypeVar("Item")
Batch = NDArray[np.float32]


class Device(StrEnum):
    """Where networks run. ``auto`` is the CPU unless a GPU build of ONNX Runtime is installed and finds a GPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Network(Protocol):
    """A loaded network: one input, one output, a fixed batch shape."""

    name: str  # runtime, device and precision really in use

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """Run each batch and yield its output with its item, in order, with a few batches in flight."""
        ...


class OpenVinoNetwork:
    """A network on the CPU. Several requests run at once; ``map`` keeps their order, so results are reproducible."""

    def __init__(self, file: Path, shape: tuple[int, ...], cache: Path | None = None) -> None:
        core = openvino.Core()
        core.set_property({"CACHE_DIR": str(cache)} if cache else {})
        try:
            model = core.read_model(file)
            model.reshape(shape)
            compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
        except RuntimeError as error:
            raise BundleError(f"{file}: OpenVINO cannot run it ({one_line(error)[:200]})") from error
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle = [compiled.create_infer_request() for _ in range(count)]
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]} CPU {precision}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """See ``Network.map``."""
        running: deque[tuple[Item, openvino.InferRequest]] = deque()

        def finish() -> tuple[Item, Batch]:
            item, request = running.popleft()
            request.wait()
            self._idle.append(request)
            return item, request.get_output_tensor(0).data.copy()

        try:
            for item, batch in items:
                if not self._idle:
                    yield finish()
                request = self._idle.pop()
                request.start_async({0: batch})
                running.append((item, request))
            while running:
                yield finish()
        finally:  # abandoned half-way: no request may stay busy
            while running:
                finish()


class OnnxRuntimeNetwork:
    """A network on a GPU through ONNX Runtime's CUDA or TensorRT provider. Not run on a GPU by us."""

    def __init__(self, file: Path, device: Device) -> None:
        import onnxruntime

        wanted = {Device.CUDA: "CUDAExecutionProvider", Device.TENSORRT: "TensorrtExecutionProvider"}[device]
        self._session = onnxruntime.InferenceSession(str(file), providers=[wanted, "CUDAExecutionProvider"])
        if self._session.get_providers()[0] != wanted:  # ONNX Runtime falls back silently
            raise RuntimeUnavailableError(f"--device {device}: ONNX Runtime fell back to another device; use cpu")
        self._input = self._session.get_inputs()[0].name
        self.name = f"ONNX Runtime {onnxruntime.__version__} {device}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """See ``Network.map``."""
        for item, batch in items:
            yield item, self._session.run(None, {self._input: batch})[0]


def load_network(file: Path, shape: tuple[int, ...], device: Device, cache: Path | None = None) -> Network:
    """Load a network for batches of ``shape`` (B, 3, H, W).

    Raises RuntimeUnavailableError when a GPU is asked for and cannot be had, BundleError when the file is no network.
    """
    chosen = choose_device(device, gpu_providers())
    return OpenVinoNetwork(file, shape, cache) if chosen is Device.CPU else OnnxRuntimeNetwork(file, chosen)


def gpu_providers() -> set[str]:
    """Return the execution providers of the installed ONNX Runtime; none where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return set()
    return set(onnxruntime.get_available_providers()) if os.path.exists("/dev/nvidiactl") else set()  # noqa: PTH110


def choose_device(asked: Device, providers: set[str]) -> Device:
    """Decide where to run, given ONNX Runtime's GPU providers."""
    available = {Device.TENSORRT: "TensorrtExecutionProvider", Device.CUDA: "CUDAExecutionProvider"}
    usable = [device for device, provider in available.items() if provider in providers]
    if asked is Device.AUTO:
        return usable[0] if usable else Device.CPU
    if asked is not Device.CPU and asked not in usable:
        raise RuntimeUnavailableError(
            f"--device {asked}: no usable GPU with onnxruntime-gpu here; install both or use --device cpu"
        )
    return asked
