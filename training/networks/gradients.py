"""The memory-bound parts of LSConv and EMA with gradients of their own, for training and inference in torch.

Left to autograd, both spend most of a training step on writing and reading intermediate images. Here each product is
one pass over memory laid out so that it vectorises. Plain formulas of the same stand in ``lsconv.py`` and ``ema.py``,
where they are what is exported; tests hold numbers and gradients of both to the published form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TAPS = 9


class NormalisedAggregation(torch.autograd.Function):
    """LSConv's kernels normalised over each group, then applied: ``aggregate(x, group_norm(raw))``.

    Images are stored as lines: each row is followed by one zero, and a row of zeros lies above and below. A shift by
    (i, j) is then an offset of i * (W + 1) + j and the pixels of a channel are one run of memory. Sums are in fp32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, raw: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Aggregate x (B, C, H, W) by kernels (B, 9 C/8, H, W), whose norm has weight and bias (9 C/8).

        Returns (B, C, H, W), channels-last, of the type of x.
        """
        batch, channels, height, width = x.shape
        groups, pitch = raw.shape[1] // TAPS, width + 1
        length = height * pitch
        precise = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
        line = x.new_zeros((batch, channels, length + 2 * pitch + 2), dtype=precise)
        line[..., pitch + 1 : pitch + 1 + length].view(batch, channels, height, pitch)[..., :width] = x
        line = line.view(batch, channels // groups, groups, -1)
        centred = with_pitch(raw, precise).view(batch, groups, TAPS, length)
        count = TAPS * height * width
        centred -= (centred.sum((2, 3)) / count)[..., None, None]
        centred.view(batch, -1, height, pitch)[..., width] = 0
        scale = (torch.linalg.vector_norm(centred, dim=(2, 3)).square() / count + eps).rsqrt()  # (B, G)
        taps = normalised(centred, scale, weight, bias)
        out = line[..., :length] * taps[:, None, :, 0]
        for tap in range(1, TAPS):
            start = offset(tap, pitch)
            out.addcmul_(line[..., start : start + length], taps[:, None, :, tap])
        ctx.save_for_backward(line, centred, scale, weight, bias)
        ctx.like = x.dtype, raw.dtype, x.shape
        return without_pitch(out.view(batch, channels, length), width, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Return the gradients of x, raw, weight and bias."""
        line, centred, scale, weight, bias = ctx.saved_tensors
        x_dtype, raw_dtype, (batch, channels, height, width) = ctx.like
        per_kernel, groups = line.shape[1:3]
        pitch, length = width + 1, height * (width + 1)
        gradient = with_pitch(gradients[0], line.dtype).view(batch, per_kernel, groups, length)
        taps, of_taps, of_line = (
            normalised(centred, scale, weight, bias),
            torch.empty_like(centred),
            torch.zeros_like(line),
        )
        for tap in range(TAPS):
            here = slice(offset(tap, pitch), offset(tap, pitch) + length)
            of_line[..., here].addcmul_(gradient, taps[:, None, :, tap])
            torch.mul(gradient[:, 0], line[:, 0, :, here], out=of_taps[:, :, tap])
            for member in range(1, per_kernel):
                of_taps[:, :, tap].addcmul_(gradient[:, member], line[:, member, :, here])
        of_x = of_line.view(batch, channels, -1)[..., pitch + 1 : pitch + 1 + length]
        sums, products = of_taps.sum(3), (of_taps * centred).sum(3)  # (B, G, 9)
        by_tap, count = weight.view(groups, TAPS), TAPS * height * width
        of_raw = of_taps.mul_((by_tap * scale[..., None])[..., None])
        of_raw.addcmul_(centred, (-(scale**3) * (products * by_tap).sum(2) / count)[..., None, None])
        of_raw -= (scale * (sums * by_tap).sum(2) / count)[..., None, None]
        return (
            without_pitch(of_x, width, x_dtype),
            without_pitch(of_raw.view(batch, -1, length), width, raw_dtype),
            (products * scale[..., None]).sum(0).view_as(weight),
            sums.sum(0).view_as(bias),
            None,
        )


def normalised(centred: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the kernels (B, G, 9, length) from those less their mean, and 1 / standard deviation (B, G)."""
    factor = scale[..., None] * weight.view(-1, TAPS)
    return torch.addcmul(bias.to(centred).view(-1, TAPS, 1), centred, factor[..., None])


def offset(tap: int, pitch: int) -> int:
    """Return how far tap 3 (i + 1) + (j + 1) reaches into a line of rows of ``pitch`` values."""
    i, j = divmod(tap, 3)
    return i * pitch + j


def with_pitch(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images as lines, each row followed by one zero: (B, C, H, W) -> (B, C, H * (W + 1))."""
    batch, channels, height, width = x.shape
    line = x.new_zeros((batch, channels, height, width + 1), dtype=dtype)
    line[..., :width] = x
    return line.view(batch, channels, -1)


def without_pitch(line: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """Return channels-last images from lines: (B, C, H * (W + 1)) -> (B, C, H, W)."""
    image = line.view(*line.shape[:2], -1, width + 1)[..., :width]
    return image.to(dtype).contiguous(memory_format=torch.channels_last)


class StripMeans(torch.autograd.Function):
    """The means of an image along each axis, and the image itself so that its gradients meet here once."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H, W, C) -> the same, its mean over W (B, H, C) and its mean over H (B, W, C)."""
        batch, height, width, channels = pixels.shape
        rows = pixels.reshape(batch * height, width, channels).sum(1).view(batch, height, channels)
        columns = pixels.reshape(batch, height, width * channels).sum(1).view(batch, width, channels)
        return pixels.view_as(pixels), rows / width, columns / height  # torch's mean in bf16 copies to fp32 first

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of the image."""
        of_pixels, of_rows, of_columns = gradients
        height, width = of_pixels.shape[1:3]
        return (of_pixels + (of_rows / width)[:, :, None]).add_((of_columns / height)[:, None])


class GatedTerm(torch.autograd.Function):
    """EMA's ``weights . norm(x * gate_h * gate_w)``, a dot product over the channels of each group."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, gate_h: Tensor, gate_w: Tensor, weights: Tensor, eps: float) -> Tensor:
        """Weigh the gated image, normalised per channel, and sum it over each group.

        Args:
            ctx: autograd's.
            pixels: x, (B, H, W, C).
            gate_h: (B, H, C).
            gate_w: (B, W, C).
            weights: (B, groups, c).
            eps: the norm's.

        Returns:
            (B, H * W, groups), of the type of pixels.

        """
        batch, height, width, channels = pixels.shape
        gated = (pixels * gate_h[:, :, None]).mul_(gate_w[:, None])
        centred = gated.view(batch, height * width, channels)
        centred -= centred.sum(1, keepdim=True) / (height * width)
        variance = (centred * centred).sum(1).to(weights) / (height * width)
        scale = (variance + eps).rsqrt().view_as(weights)
        scaled = weights * scale
        ctx.save_for_backward(pixels, gate_h, gate_w, centred, scale, scaled)
        return centred @ block_columns(scaled).to(centred)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Return the gradients of pixels, both gates and the weights."""
        pixels, gate_h, gate_w, centred, scale, scaled = ctx.saved_tensors
        batch, groups, c = scaled.shape
        product = (centred.transpose(1, 2) @ gradients[0]).view(batch, groups, c, groups)
        product = product.diagonal(dim1=1, dim2=3).transpose(1, 2).to(scaled)  # (B, groups, c)
        level = gradients[0] - gradients[0].sum(1, keepdim=True) / centred.shape[1]
        of_gated = level @ block_columns(scaled).to(level).transpose(1, 2)
        slope = (scaled * scale.square() * product / centred.shape[1]).view(batch, 1, groups * c)
        of_gated = of_gated.addcmul_(centred, -slope.to(centred)).view(pixels.shape)
        both = of_gated * pixels
        of_gate_h = (both * gate_w[:, None]).sum(2)
        of_gate_w = (both.mul_(gate_h[:, :, None])).sum(1)
        of_pixels = of_gated.mul_(gate_h[:, :, None]).mul_(gate_w[:, None])
        return of_pixels, of_gate_h, of_gate_w, product * scale, None


def block_columns(weights: Tensor) -> Tensor:
    """Return the matrix that weighs and sums the channels of each group: (B, groups, c) -> (B, groups * c, groups)."""
    batch, groups, c = weights.shape
    eye = torch.eye(groups, dtype=weights.dtype, device=weights.device)
    return (weights[..., None] * eye[:, None]).view(batch, groups * c, groups)
