"""Runs an ONNX network. OpenVINO on a CPU; ONNX Runtime with CUDA or TensorRT, which we have not run on a GPU."""

from __future__ import annotations

import logging
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
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, choose_device, engine_file, find_gpu

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Batch = NDArray[np.float32]


class Precision(StrEnum):
    """Of the arithmetic on a CPU. ``auto`` is bf16 where the CPU has it, else f32. 8-bit integers are a bundle's."""

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"


class Network(Protocol):
    """A loaded network: one input, one output, a fixed batch shape."""

    name: str  # runtime, device and precision really in use

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """Run each batch and yield its output with its item, in order, with a few batches in flight."""
        ...


class OpenVinoNetwork:
    """A network on the CPU. Several requests run at once; ``map`` keeps their order, so results are reproducible."""

    def __init__(
        self, file: Path, shape: tuple[int, ...], cache: Path | None = None, precision: Precision = Precision.AUTO
    ) -> None:
        core = openvino.Core()
        if precision is Precision.BF16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeUnavailableError("--precision bf16: this CPU has no bf16; use --precision auto or f32")
        hint = {} if precision is Precision.AUTO else {"INFERENCE_PRECISION_HINT": str(precision)}
        core.set_property({"CACHE_DIR": str(cache)} if cache else {})
        try:
            model = core.read_model(file)
            model.reshape(shape)
            compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"} | hint)
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

    def __init__(self, file: Path, device: Device, gpu: Gpu) -> None:
        import onnxruntime

        wanted = {Device.CUDA: CUDA, Device.TENSORRT: TENSORRT}[device]
        source = engine_file(file, gpu) if device is Device.TENSORRT else file
        self._session = onnxruntime.InferenceSession(str(source), providers=[wanted])
        if (got := self._session.get_providers()[0]) != wanted:  # ONNX Runtime falls back silently
            raise RuntimeUnavailableError(f"--device {device}: ONNX Runtime fell back to {got}; use --device cpu")
        self._input = self._session.get_inputs()[0].name
        self.name = f"ONNX Runtime {onnxruntime.__version__} {device} compute {gpu.compute_capability}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """See ``Network.map``."""
        for item, batch in items:
            yield item, self._session.run(None, {self._input: batch})[0]


def load_networks(
    wanted: list[tuple[Path, tuple[int, ...]]],
    device: Device,
    cache: Path | None = None,
    precision: Precision = Precision.AUTO,
) -> list[Network]:
    """Load networks, each with the shape (B, 3, H, W) of its batches, all on one device, and log what was chosen.

    Raises RuntimeUnavailableError when a device or a precision is asked for and cannot be had, BundleError when a file
    is no network.
    """
    gpu = Gpu() if device is Device.CPU else find_gpu()
    chosen = choose_device(device, gpu, [file for file, _ in wanted])
    if precision is not Precision.AUTO and chosen is not Device.CPU:
        raise RuntimeUnavailableError(f"--precision {precision} is for the CPU; add --device cpu or leave it out")
    networks: list[Network] = [
        OpenVinoNetwork(file, shape, cache, precision)
        if chosen is Device.CPU
        else OnnxRuntimeNetwork(file, chosen, gpu)
        for file, shape in wanted
    ]
    log.info("runtime: %s", networks[0].name)
    return networks
