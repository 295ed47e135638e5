"""Which GPU path can be taken, and TensorRT engines made on the card that will run them.

Not run on a GPU by us: the decisions are tested with fakes, the calls follow ONNX Runtime's documentation.

A TensorRT engine is tied to the card's compute capability and to TensorRT's version. With another one, ONNX Runtime
would silently rebuild it for minutes in every job; so an engine is used only when its file name says that it fits.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mitosis.errors import RuntimeUnavailableError

TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"
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

    @property
    def engine_tag(self) -> str | None:
        """The part of an engine's file name that says where it runs."""
        if self.compute_capability is None or self.tensorrt_version is None:
            return None
        major, minor = self.tensorrt_version.split(".")[:2]
        return f"sm{self.compute_capability.replace('.', '')}_trt{major}.{minor}"


def find_gpu() -> Gpu:
    """Look at this machine; without a card or without ONNX Runtime's GPU build there is nothing to use."""
    capability = compute_capability()
    if capability is None:
        return Gpu()
    try:
        import onnxruntime
    except ImportError:
        return Gpu(compute_capability=capability)
    return Gpu(frozenset(onnxruntime.get_available_providers()), capability, tensorrt_version())


def compute_capability() -> str | None:
    """Ask the driver for the first card's compute capability."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return out.split()[0] if out.split() else None


def tensorrt_version() -> str | None:
    """Return the installed TensorRT's version."""
    for package in ("tensorrt-cu12", "tensorrt"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def engine_file(network: Path, gpu: Gpu) -> Path:
    """Return where the engine of a bundle's ONNX file lies for this card; it need not exist.

    Raises RuntimeUnavailableError when card or TensorRT is missing.
    """
    if gpu.engine_tag is None:
        raise RuntimeUnavailableError("TensorRT needs an NVIDIA card and the package tensorrt; use --device cpu")
    return network.parent / ENGINES / f"{network.stem}_{gpu.engine_tag}.onnx"


def choose_device(asked: Device, gpu: Gpu, networks: list[Path]) -> Device:
    """Decide where to run. What was asked for by name is given or refused, never replaced.

    Raises RuntimeUnavailableError.
    """
    fits = gpu.engine_tag is not None and all(engine_file(network, gpu).is_file() for network in networks)
    if asked is Device.AUTO:
        if TENSORRT in gpu.providers and fits:
            return Device.TENSORRT
        return Device.CUDA if CUDA in gpu.providers else Device.CPU
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
            f"--device tensorrt: the bundle has no engines for {gpu.engine_tag}; "
            "make them on this card with `mitosis build-engine`, or use --device cuda"
        )
    return asked


def build_engine(network: Path, shape: tuple[int, ...], gpu: Gpu) -> Path:
    """Build the engine of one network on this card, fp16 with LayerNorm in fp32, for one fixed input shape.

    Returns its file. Raises RuntimeUnavailableError without card, TensorRT or ONNX Runtime's GPU build.
    """
    target = engine_file(network, gpu)
    if TENSORRT not in gpu.providers:
        raise RuntimeUnavailableError("ONNX Runtime finds no TensorRT here; install requirements-gpu.txt and tensorrt")
    import onnxruntime

    target.parent.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)
    profile = f"images:{'x'.join(map(str, shape))}"
    options = {
        "trt_fp16_enable": True,
        "trt_layer_norm_fp32_fallback": True,
        "trt_profile_min_shapes": profile,
        "trt_profile_opt_shapes": profile,
        "trt_profile_max_shapes": profile,
        "trt_dump_ep_context_model": True,
        "trt_ep_context_file_path": str(target),
        "trt_ep_context_embed_mode": 1,
    }
    session = onnxruntime.InferenceSession(str(network), providers=[(TENSORRT, options)])
    if session.get_providers()[0] != TENSORRT or not target.is_file():
        raise RuntimeUnavailableError(f"{network}: TensorRT built no engine; its messages are above")
    return target
