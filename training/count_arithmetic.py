"""Prints the parameters and the arithmetic of every detector, stock and improved.

python -m training.count_arithmetic
"""

from __future__ import annotations

from typing import get_args

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.networks.yolo11 import MitosisDetector, Scale, Variant

TILE_PX = 512


@torch.no_grad()
def count(variant: Variant, scale: Scale) -> tuple[float, float]:
    """Return millions of parameters and GFLOPs (a multiply-add counts as two) of convolutions for one tile."""
    model = MitosisDetector(variant, scale).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, TILE_PX, TILE_PX))
    return sum(p.numel() for p in model.parameters()) / 1e6, counter.get_total_flops() / 1e9


if __name__ == "__main__":
    print(f"| scale | variant | parameters (M) | GFLOPs at {TILE_PX} px |\n|---|---|---|---|")
    for scale in get_args(Scale):
        for variant in get_args(Variant):
            millions, gflops = count(variant, scale)
            print(f"| {scale} | {variant} | {millions:.2f} | {gflops:.1f} |")
