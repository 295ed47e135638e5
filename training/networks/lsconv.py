"""LSConv: see large, focus small (LSNet, arXiv 2503.23135).

A 7 x 7 depth-wise convolution looks at the surroundings and predicts, for every pixel, one 3 x 3 kernel per group of
channels; those kernels then aggregate the pixel's direct neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

CHANNELS_PER_KERNEL = 8
TAPS = 9


def aggregate(x: Tensor, kernels: Tensor) -> Tensor:
    """Apply one 3 x 3 kernel per pixel and channel group (SKA, zero padding).

    ``out[b, c, h, w] = sum over i, j in {-1, 0, 1} of x[b, c, h+i, w+j] * kernels[b, c mod G, 3(i+1)+(j+1), h, w]``
    with G = C / 8, so the eight channels that share a kernel are c, c + G, c + 2G, ...

    Args:
        x: (B, C, H, W).
        kernels: (B, C/8, 9, H, W).

    Returns:
        (B, C, H, W), of the type of x.

    """
    if torch.onnx.is_in_onnx_export():
        return shifted_multiply_adds(x, kernels)
    out: Tensor = Aggregation.apply(x, kernels)
    return out


def shifted_multiply_adds(x: Tensor, kernels: Tensor) -> Tensor:
    """``aggregate`` in operations that ONNX has; no 9 x larger unfolded copy."""
    batch, channels, height, width = x.shape
    groups = kernels.shape[1]
    padded = F.pad(x, (1, 1, 1, 1)).view(batch, channels // groups, groups, height + 2, width + 2)
    taps = kernels.unsqueeze(1).unbind(dim=3)  # nine of (B, 1, G, H, W)
    out = padded[..., :height, :width] * taps[0]
    for tap in range(1, TAPS):
        i, j = divmod(tap, 3)
        out = out + padded[..., i : i + height, j : j + width] * taps[tap]
    return out.view(batch, channels, height, width)


class Aggregation(torch.autograd.Function):
    """``aggregate`` with its gradient, on images stored as one line.

    Each row is followed by one zero, and a row of zeros lies above and below. A shift by (i, j) is then an offset of
    i * (W + 1) + j, and all pixels of a channel are one run of memory: nine passes that vectorise, summed in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor) -> Tensor:
        """See ``aggregate``."""
        batch, channels, height, width = x.shape
        groups, pitch = kernels.shape[1], width + 1
        length = height * pitch
        precise = torch.promote_types(torch.promote_types(x.dtype, kernels.dtype), torch.float32)
        line = x.new_zeros((batch, channels, length + 2 * pitch + 2), dtype=precise)
        line[..., pitch + 1 : pitch + 1 + length].view(batch, channels, height, pitch)[..., :width] = x
        line = line.view(batch, channels // groups, groups, -1)
        taps = with_pitch(kernels.transpose(1, 2), precise)[:, :, None]  # (B, 9, 1, G, length)
        out = line[..., :length] * taps[:, 0]
        for tap in range(1, TAPS):
            start = offset(tap, pitch)
            out.addcmul_(line[..., start : start + length], taps[:, tap])
        ctx.save_for_backward(line, taps)
        ctx.like = x.dtype, kernels.dtype, x.shape
        return without_pitch(out.view(batch, channels, length), x.shape, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of x and of the kernels."""
        line, taps = ctx.saved_tensors
        x_dtype, kernels_dtype, shape = ctx.like
        batch, channels, height, width = shape
        pitch, length = width + 1, height * (width + 1)
        gradient = with_pitch(gradients[0], line.dtype).view(batch, *line.shape[1:3], length)
        of_line, of_taps, product = torch.zeros_like(line), torch.empty_like(taps), torch.empty_like(gradient)
        for tap in range(TAPS):
            start = offset(tap, pitch)
            of_line[..., start : start + length].addcmul_(gradient, taps[:, tap])
            torch.mul(gradient, line[..., start : start + length], out=product)
            torch.sum(product, 1, keepdim=True, out=of_taps[:, tap])
        of_x = of_line.view(batch, channels, -1)[..., pitch + 1 : pitch + 1 + length]
        of_kernels = of_taps.view(batch, TAPS, -1, height, pitch)[..., :width].transpose(1, 2)
        return without_pitch(of_x, shape, x_dtype), of_kernels.to(kernels_dtype)


def offset(tap: int, pitch: int) -> int:
    """Return how far tap 3 (i + 1) + (j + 1) reaches into a line of rows of ``pitch`` values."""
    i, j = divmod(tap, 3)
    return i * pitch + j


def with_pitch(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images as lines, each row followed by one zero: (..., H, W) -> (..., H * (W + 1))."""
    *leading, height, width = x.shape
    line = x.new_zeros((*leading, height, width + 1), dtype=dtype)
    line[..., :width] = x
    return line.view(*leading, -1)


def without_pitch(line: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """Return channels-last images from lines: (B, C, H * (W + 1)) -> (B, C, H, W)."""
    batch, channels, height, width = shape
    image = line.view(batch, channels, height, width + 1)[..., :width]
    return image.to(dtype, memory_format=torch.channels_last)


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
        kernels: Tensor = normalise(self.norm, self.predict(self.mix(self.look(self.reduce(x)))))
        batch, _, height, width = kernels.shape
        return kernels.view(batch, self.groups, TAPS, height, width)


def normalise(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Return ``norm(x)`` by reductions over pixels first: torch's own is slow on channels-last images."""
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    by_group = (batch, norm.num_groups, -1)
    mean = pixels.mean(1).view(by_group).mean(2, keepdim=True).expand(*by_group[:2], channels // norm.num_groups)
    centred = pixels - mean.reshape(batch, 1, channels)
    variance = (centred * centred).mean(1).view(by_group).mean(2, keepdim=True)
    scale = (variance + norm.eps).rsqrt() * norm.weight.view(norm.num_groups, -1)
    scaled = centred * scale.view(batch, 1, channels).to(centred) + norm.bias.to(centred)
    return scaled.view(batch, height, width, channels).permute(0, 3, 1, 2)


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
