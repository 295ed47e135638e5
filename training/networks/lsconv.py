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


def by_kernel(x: Tensor) -> Tensor:
    """Return the image with its channels as (those of a kernel, kernels): (B, C, H, W) -> (B, 8, C/8, H, W)."""
    batch, channels, height, width = x.shape
    return x.view(batch, CHANNELS_PER_KERNEL, channels // CHANNELS_PER_KERNEL, height, width)


def aggregate(x: Tensor, kernels: Tensor) -> Tensor:
    """Apply one 3 x 3 kernel per pixel and channel group (SKA, zero padding).

    ``out[b, k, g, h, w] = sum over i, j in {-1, 0, 1} of x[b, k, g, h+i, w+j] * kernels[b, g, 3(i+1)+(j+1), h, w]``,
    so with G = C / 8 the eight channels that share a kernel are g, g + G, g + 2G, ...

    Nine shifted multiply-adds in operations that ONNX has, with few shifted copies of whole images: x is shifted by
    columns (two copies), the eight times smaller kernels by rows against it, and two of the three sums over a row of
    taps by rows back.

    Args:
        x: (B, 8, G, H, W); see ``by_kernel``.
        kernels: (B, G, 9, H, W).

    Returns:
        (B, 8, G, H, W).

    """
    batch, _, groups, height, width = x.shape
    columns = shifted(x, 0, -1), x, shifted(x, 0, 1)  # what lies left of each pixel, the pixel, what lies right of it
    taps = [tap.view(batch, 1, groups, height, width) for tap in kernels.unbind(2)]
    rows = []
    for i in (-1, 0, 1):
        first, second, third = (shifted(tap, -i, 0) for tap in taps[3 * (i + 1) : 3 * (i + 2)])
        rows.append(shifted(columns[0] * first + columns[1] * second + columns[2] * third, i, 0))
    return rows[0] + rows[1] + rows[2]


def shifted(x: Tensor, i: int, j: int) -> Tensor:
    """Return the image whose pixel (h, w) is x's pixel (h + i, w + j), 0 outside."""
    return F.pad(x, (-j, j, -i, i)) if i or j else x


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
        with torch.autocast(x.device.type, enabled=False):  # its weight's gradient takes a CPU 3 times longer in bf16
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
        raw, norm = self.kernels(x), self.kernels.norm
        if torch.onnx.is_in_onnx_export():
            return self.by_multiply_adds(x, norm(raw))
        out: Tensor = self.norm(NormalisedAggregation.apply(x, raw, norm.weight, norm.bias, norm.eps)) + x
        return out

    def by_multiply_adds(self, x: Tensor, kernels: Tensor) -> Tensor:
        """Return the same in evaluation mode from normalised kernels, (B, 9 C/8, H, W): the form that is exported.

        Norm and shortcut see the channels as the aggregation does, so that runtimes fuse them without a new layout.
        """
        batch, channels, height, width = x.shape
        groups, image = channels // CHANNELS_PER_KERNEL, by_kernel(x)
        out = aggregate(image, kernels.view(batch, groups, TAPS, height, width))
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        scale = self.norm.weight * (variance + self.norm.eps).rsqrt()
        shift = self.norm.bias - mean * scale
        parts = (1, CHANNELS_PER_KERNEL, groups, 1, 1)
        return (out * scale.view(parts) + shift.view(parts) + image).view(batch, channels, height, width)
