"""LSConv: see large, focus small (LSNet, arXiv 2503.23135).

A 7 x 7 depth-wise convolution looks at the surroundings and predicts, for every pixel, one 3 x 3 kernel per group of
channels; those kernels then aggregate the pixel's direct neighbours.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

CHANNELS_PER_KERNEL = 8
TAPS = 9


def aggregate(x: Tensor, kernels: Tensor) -> Tensor:
    """Apply one 3 x 3 kernel per pixel and channel group (SKA, zero padding).

    ``out[b, c, h, w] = sum over i, j in {-1, 0, 1} of x[b, c, h+i, w+j] * kernels[b, c mod G, 3(i+1)+(j+1), h, w]``
    with G = C / 8, so the eight channels that share a kernel are c, c + G, c + 2G, ...

    Nine shifted multiply-adds: exportable to ONNX, differentiated by autograd, and without a 9 x larger unfolded copy.

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
    """Large-kernel perception (LKP): (B, C, H, W) -> kernels (B, C/8, 9, H, W)."""

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
        """Predict the kernels; they are normalised over each group, and not by a softmax."""
        kernels: Tensor = self.norm(self.predict(self.mix(self.look(self.reduce(x)))))
        batch, _, height, width = kernels.shape
        return kernels.view(batch, self.groups, TAPS, height, width)


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
        out: Tensor = self.norm(aggregate(x, self.kernels(x))) + x
        return out
