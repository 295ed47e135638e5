"""Which GPU path can be taken, and TensorRT engines made on the card that will run them.

By us, CUDA was tried on one card (an H100: networks loaded, one batch each), TensorRT on none: the decisions are tested
with fakes, the calls follow ONNX Runtime's documentation.

A TensorRT engine is tied to the card's compute capability and to TensorRT's version. With another one, ONNX Runtime
would silently rebuild it for minutes in every job; so an engine is used only when its file name says that it fits: the
card, the version, the weights it was made of and the shape of its batches.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mitosis.config import one_line
from mitosis.errors import RuntimeUnavailableError
from mitosis.network import NetworkFile

TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
ENGINES = "engines"  # folder inside a bundle


class Device(StrEnum):
    """Where networks run. ``auto`` takes TensorRT where a fitting engine is, then CUDA, then the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


@dataclass(frozen=True)
class Gpu:
    """What this machine offers: ONNX Runtime's providers, the card and TensorRT; None where there is none."""

    providers: frozenset[str] = frozenset()
    compute_capability: str | None = None  # "7.5" for a T4
    tensorrt_version: str | None = None
    card: str | None = None  # its name

    @property
    def engine_tag(self) -> str | None:
        """The part of an engine's file name that says where it runs."""
        if self.compute_capability is None or self.tensorrt_version is None:
            return None
        major, minor = self.tensorrt_version.split(".")[:2]
        return f"sm{self.compute_capability.replace('.', '')}_trt{major}.{minor}"


def find_gpu() -> Gpu:
    """Look at this machine; without a card or without ONNX Runtime's GPU build there is nothing to use."""
    card, capability = find_card()
    if capability is None:
        return Gpu()
    try:
        import onnxruntime
    except ImportError:
        return Gpu(compute_capability=capability, card=card)
    return Gpu(frozenset(onnxruntime.get_available_providers()), capability, tensorrt_version(), card)


def find_card() -> tuple[str | None, str | None]:
    """Ask the driver for the first card's name and compute capability."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        name, capability = out.splitlines()[0].rsplit(",", 1)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None, None
    return name.strip(), capability.strip()


def tensorrt_version() -> str | None:
    """Return the installed TensorRT's version."""
    for package in ("tensorrt-cu12-libs", "tensorrt-cu12", "tensorrt"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def load_onnxruntime(device: Device) -> Any:
    """Import ONNX Runtime and load CUDA, cuDNN and TensorRT from where pip has put them: it looks elsewhere.

    Raises RuntimeUnavailableError.
    """
    try:
        import onnxruntime

        onnxruntime.preload_dlls()
        if device is Device.TENSORRT and (found := importlib.util.find_spec("tensorrt_libs")) and found.origin:
            for name in TENSORRT_LIBRARIES:
                ctypes.CDLL(str(Path(found.origin).parent / name), mode=ctypes.RTLD_GLOBAL)
    except (ImportError, AttributeError, OSError) as error:
        raise RuntimeUnavailableError(
            f"--device {device}: ONNX Runtime cannot be loaded ({one_line(error)[:200]}); use --device cpu"
        ) from error
    return onnxruntime


def engine_file(network: NetworkFile, gpu: Gpu) -> Path:
    """Return where the engine of a bundle's ONNX file lies for this card; it need not exist.

    Raises RuntimeUnavailableError when card or TensorRT is missing.
    """
    if gpu.engine_tag is None:
        raise RuntimeUnavailableError("TensorRT needs an NVIDIA card and the package tensorrt; use --device cpu")
    file, shape, *_ = network
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return file.parent / ENGINES / f"{file.stem}_{digest}_{'x'.join(map(str, shape))}_{gpu.engine_tag}.onnx"


def devices_to_try(asked: Device, gpu: Gpu, networks: Sequence[NetworkFile]) -> list[Device]:
    """Decide where to run, best first. What was asked for by name is given or refused, never replaced.

    Raises RuntimeUnavailableError.
    """
    fits = gpu.engine_tag is not None and all(engine_file(network, gpu).is_file() for network in networks)
    if asked is Device.AUTO:
        usable = {Device.TENSORRT: TENSORRT in gpu.providers and fits, Device.CUDA: CUDA in gpu.providers}
        return [*(device for device, can_be_tried in usable.items() if can_be_tried), Device.CPU]
    if asked is Device.CUDA and CUDA not in gpu.providers:
        raise RuntimeUnavailableError(
            "--device cuda: no NVIDIA card with ONNX Runtime's GPU build here; install requirements-gpu.txt or use cpu"
        )
    if asked is Device.TENSORRT and TENSORRT not in gpu.providers:
        raise RuntimeUnavailableError(
            "--device tensorrt: ONNX Runtime finds no TensorRT here; use --device cuda or cpu"
        )
    if asked is Device.TENSORRT and not fits:
        raise RuntimeUnavailableError(
            f"--device tensorrt: the bundle has no engines for {gpu.engine_tag} and its weights; "
            "make them on this card with `mitosis build-engine`, or use --device cuda"
        )
    return [asked]


def build_engine(network: NetworkFile, gpu: Gpu) -> Path:
    """Build the engine of one network on this card, fp16 with LayerNorm in fp32, for one fixed input shape.

    Returns its file; older ones for this card are removed. Raises RuntimeUnavailableError without card, TensorRT or
    ONNX Runtime's GPU build.
    """
    target = engine_file(network, gpu)
    if TENSORRT not in gpu.providers:
        raise RuntimeUnavailableError(
            "ONNX Runtime finds no TensorRT here; install requirements-tensorrt.txt on a machine with an NVIDIA card"
        )
    onnxruntime = load_onnxruntime(Device.TENSORRT)
    file, shape, *_ = network
    target.parent.mkdir(exist_ok=True)
    for old in target.parent.glob(f"{file.stem}_*_{gpu.engine_tag}.onnx"):
        old.unlink()
    session = onnxruntime.InferenceSession(str(file), providers=[(TENSORRT, engine_options(target, shape))])
    if session.get_providers()[0] != TENSORRT or not target.is_file():
        raise RuntimeUnavailableError(f"{file}: TensorRT built no engine; its messages are above")
    return target


def engine_options(target: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the TensorRT provider's options for an engine of one shape, to be written to ``target``."""
    profile = f"images:{'x'.join(map(str, shape))}"
    return {
        "trt_fp16_enable": True,
        "trt_layer_norm_fp32_fallback": True,
        "trt_profile_min_shapes": profile,
        "trt_profile_opt_shapes": profile,
        "trt_profile_max_shapes": profile,
        "trt_dump_ep_context_model": True,
        "trt_ep_context_file_path": str(target),
        "trt_ep_context_embed_mode": 1,
    }
