"""Runs an ONNX network on a CPU, through OpenVINO."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import openvino
from openvino.preprocess import PrePostProcessor

from mitosis.config import one_line
from mitosis.errors import BundleError, MemoryFullError, RuntimeUnavailableError
from mitosis.memory import is_exhausted, limit_bytes, message, requests_that_fit
from mitosis.network import Batch, Item, NetworkFile, Output

QUEUED = 2  # requests for each that runs, so that none of the cores waits for the next


class Precision(StrEnum):
    """Of the arithmetic on a CPU. 8-bit integers are a bundle's.

    ``auto`` is bf16 where the CPU has it, except for what decides (``NetworkFile.decides``); elsewhere f32.
    """

    AUTO = "auto"
    F32 = "f32"
    BF16 = "bf16"


@dataclass(frozen=True)
class CpuUse:
    """How networks use the CPU.

    ``threads`` bounds the cores in use, where several processes share a machine; None takes all. ``cache`` is a folder
    for compiled networks.
    """

    precision: Precision = Precision.AUTO
    threads: int | None = None
    cache: Path | None = None

    def hints(self, core: openvino.Core) -> dict[str, str | int | bool]:
        """Return OpenVINO's settings: requests on all cores, or as many as the memory holds.

        Raises RuntimeUnavailableError where the CPU has not the precision.
        """
        hints: dict[str, str | int | bool] = {"PERFORMANCE_HINT": "THROUGHPUT"}
        if self.precision is Precision.BF16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise RuntimeUnavailableError("--precision bf16: this CPU has no bf16; use --precision auto or f32")
        if self.precision is not Precision.AUTO:
            hints["INFERENCE_PRECISION_HINT"] = str(self.precision)
        if self.threads:
            # Processes that share a machine must not pin their threads: all would take the first cores.
            hints |= {"INFERENCE_NUM_THREADS": self.threads, "ENABLE_CPU_PINNING": False}
        if (limit := limit_bytes()) is not None:
            hints["PERFORMANCE_HINT_NUM_REQUESTS"] = requests_that_fit(limit, self.threads)
        return hints


class OpenVinoNetwork:
    """A network on the CPU. Several requests run at once; ``map`` keeps their order, so results are reproducible."""

    def __init__(self, network: NetworkFile, use: CpuUse = CpuUse()) -> None:
        if network.decides and use.precision is Precision.AUTO:
            use = replace(use, precision=Precision.F32)
        try:
            try:
                compiled = compile_network(network, use)
            except RuntimeError:
                if not use.cache:
                    raise
                compiled = compile_network(network, replace(use, cache=None))  # whatever was wrong with the cache
        except RuntimeUnavailableError:
            raise
        except RuntimeError as error:
            if is_exhausted(error):
                raise MemoryFullError(f"{network.file}: {message()}") from error
            raise BundleError(f"{network.file}: OpenVINO cannot run it ({one_line(error)[:200]})") from error
        self._compiled = compiled
        self._requests = QUEUED * int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.rounds = precision == Precision.BF16  # three digits turn a score near the threshold to either side
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]} CPU {precision}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """See ``Network.map``. Each call has requests of its own, so that one may feed on another's results."""
        idle = [self._compiled.create_infer_request() for _ in range(self._requests)]
        running: deque[tuple[Item, openvino.InferRequest]] = deque()

        def finish() -> tuple[Item, Output]:
            item, request = running.popleft()
            request.wait()
            idle.append(request)
            return item, request.get_output_tensor(0).data.copy()

        try:
            for item, batch in items:
                if not idle:
                    yield finish()
                request = idle.pop()
                request.start_async({0: batch})
                running.append((item, request))
            while running:
                yield finish()
        finally:  # abandoned half-way: nothing may run on unattended, reading arrays that are gone
            while running:
                with suppress(Exception):
                    finish()


def compile_network(network: NetworkFile, use: CpuUse) -> openvino.CompiledModel:
    """Compile a network, or take it from the cache; raises RuntimeError, and RuntimeUnavailableError of ``use``."""
    core = openvino.Core()
    core.set_property({"CACHE_DIR": str(use.cache)} if use.cache else {})
    model = core.read_model(network.file)
    model.reshape(network.shape)
    if network.takes_pixels:
        model = with_pixels(model)
    return core.compile_model(model, "CPU", use.hints(core))


def with_pixels(model: openvino.Model) -> openvino.Model:
    """Return a network that takes RGB bytes, (B, H, W, 3), in place of (B, 3, H, W) in 0..1."""
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    return steps.build()
