"""LSConv: see large, focus small (LSNet, arXiv 2503.23135).

A 7 x 7 depth-wise convolution looks at the surroundings and predicts, for every pixel, one 3 x 3 kernel per group of
channels; those kernels then aggregate the pixel's direct neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from training.networks.gradients import TAPS, NormalisedAggregation

CHANNELS_PER_KERNEL = 8


def aggregate(x: Tensor, kernels: Tensor) -> Tensor:
    """Apply one 3 x 3 kernel per pixel and channel group (SKA, zero padding).

    ``out[b, c, h, w] = sum over i, j in {-1, 0, 1} of x[b, c, h+i, w+j] * kernels[b, c mod G, 3(i+1)+(j+1), h, w]``
    with G = C / 8, so the eight channels that share a kernel are c, c + G, c + 2G, ...

    Nine shifted multiply-adds, which ONNX has: no 9 x larger unfolded copy.

    Args:
        x: (B, C, H, W).
        kernels: (B, C/8, 9, H, W).

    Returns:
        (B, C, H, W).

    """
    batch, channels, height, width = x.shape
    groups = kernels.shape[1]
    padded = F.pad(x, (1, 1, 1, 1)).view(batch, channels // groups, groups, height + 2, width + 2)
    taps = kernels.unsqueeze(1).unbind(dim=3)  # nine of (B, 1, G, H, W)
    out = padded[..., :height, :width] * taps[0]
    for tap in range(1, TAPS):
        i, j = divmod(tap, 3)
        out = out + padded[..., i : i + height, j : j + width] * taps[tap]
    return out.view(batch, channels, height, width)


class KernelPredictor(nn.Module):
    """Large-kernel perception (LKP): (B, C, H, W) -> kernels (B, 9 C/8, H, W) before their norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.groups = channels // CHANNELS_PER_KERNEL
        self.reduce = Conv(channels, half, 1, act=nn.ReLU())
        self.look = Conv(half, half, 7, g=half, act=False)
        self.mix = Conv(half, half, 1, act=nn.ReLU())
        self.predict = nn.Conv2d(half, TAPS * self.groups, 1)
        self.norm = nn.GroupNorm(self.groups, TAPS * self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the kernels; ``norm``, over each group and not a softmax, is left to the caller."""
        reduced = self.reduce(x)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # on CPUs, its weight's gradient takes 3 times longer in bf16
            seen = self.look(reduced.to(self.look.conv.weight.dtype))
        kernels: Tensor = self.predict(self.mix(seen))
        return kernels


class LSConv(nn.Module):
    """``y = BN(SKA(x, LKP(x))) + x``; stride 1, channels divisible by 8 and unchanged."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % CHANNELS_PER_KERNEL:
            raise ValueError(f"LSConv needs channels divisible by {CHANNELS_PER_KERNEL}, got {channels}")
        self.kernels = KernelPredictor(channels)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = self.norm(normalised_aggregation(x, self.kernels(x), self.kernels.norm)) + x
        return out


def normalised_aggregation(x: Tensor, raw: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Return ``aggregate(x, norm(raw))``: see ``NormalisedAggregation``, whose formula this is."""
    if not torch.onnx.is_in_onnx_export():
        found: Tensor = NormalisedAggregation.apply(x, raw, norm.weight, norm.bias, norm.eps)
        return found
    batch, _, height, width = raw.shape
    return aggregate(x, norm(raw).view(batch, norm.num_groups, TAPS, height, width))
