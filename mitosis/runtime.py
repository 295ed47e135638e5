"""Loads networks on the best device that really works: TensorRT, CUDA, or the CPU.

ONNX Runtime with CUDA was run by us for one batch of each network, with TensorRT not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mitosis.config import one_line
from mitosis.cpu import CpuUse, OpenVinoNetwork, Precision
from mitosis.errors import RuntimeUnavailableError
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, devices_to_try, engine_file, find_gpu, load_onnxruntime
from mitosis.memory import check_minimum
from mitosis.network import Batch, Item, Network, NetworkFile, Output, prepare_pixels

log = logging.getLogger(__name__)


class OnnxRuntimeNetwork:
    """A network on a GPU through ONNX Runtime's CUDA or TensorRT provider."""

    def __init__(self, network: NetworkFile, device: Device, gpu: Gpu) -> None:
        onnxruntime = load_onnxruntime(device)
        wanted = {Device.CUDA: CUDA, Device.TENSORRT: TENSORRT}[device]
        source = engine_file(network, gpu) if device is Device.TENSORRT else network.file
        try:
            self._session = onnxruntime.InferenceSession(str(source), providers=[wanted])
            self._input = self._session.get_inputs()[0].name
            self._session.run(None, {self._input: np.zeros(network.shape, np.float32)})  # some failures show only now
        except Exception as error:  # its exceptions share no base but this one
            raise RuntimeUnavailableError(
                f"--device {device}: ONNX Runtime cannot run {source} ({one_line(error)[:200]}); use --device cpu"
            ) from error
        if (got := self._session.get_providers()[0]) != wanted:  # ONNX Runtime falls back silently
            raise RuntimeUnavailableError(f"--device {device}: ONNX Runtime fell back to {got}; use --device cpu")
        self._takes_pixels = network.takes_pixels
        precision = f"TensorRT {gpu.tensorrt_version} f16" if device is Device.TENSORRT else "CUDA f32"
        self.name = f"ONNX Runtime {onnxruntime.__version__} {precision} {gpu.card} sm_{gpu.compute_capability}"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """See ``Network.map``."""
        for item, batch in items:
            x = prepare_pixels(batch.view(np.uint8)) if self._takes_pixels else batch
            yield item, self._session.run(None, {self._input: x})[0]


def load_networks(
    wanted: Sequence[NetworkFile],
    device: Device,
    use: CpuUse = CpuUse(),  # noqa: B008 - frozen
) -> list[Network]:
    """Load networks, all on the best device that really works; ``use`` is for the CPU.

    Raises RuntimeUnavailableError when a device or a precision is asked for and cannot be had, BundleError when a file
    is no network.
    """
    check_minimum()
    gpu = Gpu() if device is Device.CPU else find_gpu()
    *better, last = devices_to_try(device, gpu, wanted)
    if use.precision is not Precision.AUTO and (better or last is not Device.CPU):
        raise RuntimeUnavailableError(f"--precision {use.precision} is for the CPU; add --device cpu or leave it out")
    for one in better:
        try:
            return load_on(one, gpu, wanted, use)
        except RuntimeUnavailableError as error:
            log.warning("%s", error)
    return load_on(last, gpu, wanted, use)


def load_on(device: Device, gpu: Gpu, wanted: Sequence[NetworkFile], use: CpuUse) -> list[Network]:
    """Load networks on one device and log what was really got; raises RuntimeUnavailableError and BundleError."""
    networks: list[Network] = [
        OpenVinoNetwork(one, use) if device is Device.CPU else OnnxRuntimeNetwork(one, device, gpu) for one in wanted
    ]
    log.info("runtime: %s", networks[0].name)
    return networks
