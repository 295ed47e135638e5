"""Runs an ONNX network. OpenVINO on a CPU; ONNX Runtime with CUDA or TensorRT, which we have not run on a GPU."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import openvino
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.errors import BundleError, MemoryFullError, RuntimeUnavailableError
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, devices_to_try, engine_file, find_gpu, load_onnxruntime
from mitosis.memory import check_minimum, is_exhausted, limit_bytes, message, requests_that_fit

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Batch = NDArray[np.float32]


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
            compiled = core.compile_model(model, "CPU", throughput_hints())
        except RuntimeError as error:
            if is_exhausted(error):
                raise MemoryFullError(f"{file}: {message()}") from error
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


def throughput_hints() -> dict[str, str | int]:
    """Return how OpenVINO shall use the CPU: requests on all cores, or as many as the memory holds."""
    limit = limit_bytes()
    number = {} if limit is None else {"PERFORMANCE_HINT_NUM_REQUESTS": requests_that_fit(limit)}
    return {"PERFORMANCE_HINT": "THROUGHPUT"} | number


class OnnxRuntimeNetwork:
    """A network on a GPU through ONNX Runtime's CUDA or TensorRT provider. Not run on a GPU by us."""

    def __init__(self, file: Path, shape: tuple[int, ...], device: Device, gpu: Gpu) -> None:
        onnxruntime = load_onnxruntime(device)
        wanted = {Device.CUDA: CUDA, Device.TENSORRT: TENSORRT}[device]
        source = engine_file((file, shape), gpu) if device is Device.TENSORRT else file
        try:
            self._session = onnxruntime.InferenceSession(str(source), providers=[wanted])
            self._input = self._session.get_inputs()[0].name
            self._session.run(None, {self._input: np.zeros(shape, np.float32)})  # some failures show only now
        except Exception as error:  # its exceptions share no base but this one
            raise RuntimeUnavailableError(
                f"--device {device}: ONNX Runtime cannot run {source} ({one_line(error)[:200]}); use --device cpu"
            ) from error
        if (got := self._session.get_providers()[0]) != wanted:  # ONNX Runtime falls back silently
            raise RuntimeUnavailableError(f"--device {device}: ONNX Runtime fell back to {got}; use --device cpu")
        precision = f"TensorRT {gpu.tensorrt_version} f16" if device is Device.TENSORRT else "CUDA f32"
        self.name = f"ONNX Runtime {onnxruntime.__version__} {precision} {gpu.card} sm_{gpu.compute_capability}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        """See ``Network.map``."""
        for item, batch in items:
            yield item, self._session.run(None, {self._input: batch})[0]


def load_networks(
    wanted: list[tuple[Path, tuple[int, ...]]], device: Device, cache: Path | None = None
) -> list[Network]:
    """Load networks, each with the shape (B, 3, H, W) of its batches, all on the best device that really works.

    Raises RuntimeUnavailableError when a device is asked for and cannot be had, BundleError when a file is no network.
    """
    check_minimum()
    gpu = Gpu() if device is Device.CPU else find_gpu()
    *better, last = devices_to_try(device, gpu, wanted)
    for one in better:
        try:
            return load_on(one, gpu, wanted, cache)
        except RuntimeUnavailableError as error:
            log.warning("%s", error)
    return load_on(last, gpu, wanted, cache)


def load_on(device: Device, gpu: Gpu, wanted: list[tuple[Path, tuple[int, ...]]], cache: Path | None) -> list[Network]:
    """Load networks on one device and log what was really got; raises RuntimeUnavailableError and BundleError."""
    networks: list[Network] = [
        OpenVinoNetwork(file, shape, cache) if device is Device.CPU else OnnxRuntimeNetwork(file, shape, device, gpu)
        for file, shape in wanted
    ]
    log.info("runtime: %s", networks[0].name)
    return networks
