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
from openvino.preprocess import PrePostProcessor

from mitosis.config import one_line
from mitosis.errors import BundleError, RuntimeUnavailableError
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, choose_device, engine_file, find_gpu

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Batch = NDArray[np.float32] | NDArray[np.uint8]
Output = NDArray[np.float32]

QUEUED = 2  # requests for each that runs, so that none of the cores waits for the next


def prepare_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn (B, H, W, 3) RGB bytes into (B, 3, H, W) in 0..1."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)


class Network(Protocol):
    """A loaded network: one input, one output, a fixed batch shape."""

    name: str  # runtime, device and precision really in use

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """Run each batch and yield its output with its item, in order, with a few batches in flight."""
        ...


class OpenVinoNetwork:
    """A network on the CPU. Several requests run at once; ``map`` keeps their order, so results are reproducible."""

    def __init__(
        self, file: Path, shape: tuple[int, ...], cache: Path | None = None, takes_pixels: bool = False
    ) -> None:
        """With ``takes_pixels``, batches are RGB bytes, (B, H, W, 3), and the network sees (B, 3, H, W) in 0..1.

        OpenVINO does that on the way: bf16 holds every byte exactly, but of most 255ths only the first three digits.
        """
        core = openvino.Core()
        core.set_property({"CACHE_DIR": str(cache)} if cache else {})
        try:
            model = core.read_model(file)
            model.reshape(shape)
            model = with_pixels(model) if takes_pixels else model
            compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
        except RuntimeError as error:
            raise BundleError(f"{file}: OpenVINO cannot run it ({one_line(error)[:200]})") from error
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle = [compiled.create_infer_request() for _ in range(QUEUED * count)]
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]} CPU {precision}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """See ``Network.map``."""
        running: deque[tuple[Item, openvino.InferRequest]] = deque()

        def finish() -> tuple[Item, Output]:
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

    def __init__(self, file: Path, device: Device, gpu: Gpu, takes_pixels: bool = False) -> None:
        import onnxruntime

        wanted = {Device.CUDA: CUDA, Device.TENSORRT: TENSORRT}[device]
        source = engine_file(file, gpu) if device is Device.TENSORRT else file
        self._session = onnxruntime.InferenceSession(str(source), providers=[wanted])
        if (got := self._session.get_providers()[0]) != wanted:  # ONNX Runtime falls back silently
            raise RuntimeUnavailableError(f"--device {device}: ONNX Runtime fell back to {got}; use --device cpu")
        self._takes_pixels = takes_pixels
        self._input = self._session.get_inputs()[0].name
        self.name = f"ONNX Runtime {onnxruntime.__version__} {device} compute {gpu.compute_capability}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """See ``Network.map``."""
        for item, batch in items:
            x = prepare_pixels(batch.view(np.uint8)) if self._takes_pixels else batch
            yield item, self._session.run(None, {self._input: x})[0]


def with_pixels(model: openvino.Model) -> openvino.Model:
    """Return a network that takes RGB bytes, (B, H, W, 3), in place of (B, 3, H, W) in 0..1."""
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()


def load_networks(
    wanted: list[tuple[Path, tuple[int, ...]]], device: Device, cache: Path | None = None
) -> list[Network]:
    """Load networks, each with the shape (B, 3, H, W) of its batches, all on one device, and log what was chosen.

    The first is given RGB bytes, (B, H, W, 3); the others (B, 3, H, W) as they want it.

    Raises RuntimeUnavailableError when a device is asked for and cannot be had, BundleError when a file is no network.
    """
    gpu = Gpu() if device is Device.CPU else find_gpu()
    chosen = choose_device(device, gpu, [file for file, _ in wanted])
    networks: list[Network] = [
        OpenVinoNetwork(file, shape, cache, takes_pixels=index == 0)
        if chosen is Device.CPU
        else OnnxRuntimeNetwork(file, chosen, gpu, takes_pixels=index == 0)
        for index, (file, shape) in enumerate(wanted)
    ]
    log.info("runtime: %s", networks[0].name)
    return networks
