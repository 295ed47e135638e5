"""The most arithmetic this machine does: matrix products through OpenVINO in fp32, bf16 and int8.

taskset -c 0,1 python -m benchmarks.peak
"""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import openvino
import typer
from openvino import opset13 as ops

SIZES = (1024, 2048, 3072)
PRECISIONS = ("f32", "bf16", "int8")


def product(size: int, precision: str) -> openvino.CompiledModel:
    """Compile ``x @ weights`` for square matrices; int8 by 8-bit quantisation of both, as NNCF writes it."""
    weights = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    x = ops.parameter([size, size], np.float32)
    left, right = x, ops.constant(weights)
    if precision == "int8":
        limit = np.float32(4.0)
        left = ops.fake_quantize(left, -limit, limit * 127 / 128, -limit, limit * 127 / 128, 256)
        right = ops.fake_quantize(right, -limit, limit, -limit, limit, 255)
    model = openvino.Model([ops.matmul(left, right, False, False)], [x])
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32" if precision == "f32" else "bf16"}
    return openvino.Core().compile_model(model, "CPU", hints)


def teraflops(size: int, precision: str, seconds: float) -> float:
    """Return the best rate within ``seconds``; a multiply-add counts as two operations."""
    request = product(size, precision).create_infer_request()
    x = np.random.default_rng(1).normal(size=(size, size)).astype(np.float32)
    request.infer({0: x})
    best_s, ends_s = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < ends_s:
        started_s = time.perf_counter()
        request.infer({0: x}, share_inputs=True, share_outputs=True)
        best_s = min(best_s, time.perf_counter() - started_s)
    return 2 * size**3 / best_s / 1e12


def available(precision: str) -> bool:
    """Tell whether the CPU has the arithmetic."""
    has: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"f32": "FP32", "bf16": "BF16", "int8": "INT8"}[precision] in has


def measure_peaks(seconds: float) -> dict[str, float]:
    """Return TFLOP/s by precision, the best of all sizes, for those that the CPU has."""
    return {p: max(teraflops(size, p, seconds) for size in SIZES) for p in PRECISIONS if available(p)}


def main(seconds: Annotated[float, typer.Option(help="For each size and precision")] = 3.0) -> None:
    """Print the peaks."""
    print("| arithmetic | TFLOP/s |\n|---|---|")
    for precision, rate in measure_peaks(seconds).items():
        print(f"| {precision} | {rate:.2f} |")


if __name__ == "__main__":
    typer.run(main)
