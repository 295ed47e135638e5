"""EMA: efficient multi-scale attention with cross-spatial learning (arXiv 2305.13563).

Not an exponential moving average of weights: that one lives in the training loop.

Published form, in each of 32 groups of c = C / 32 channels: gates along both axes from strip pooling and a shared 1 x 1
convolution, ``x1 = norm(x * gate_h * gate_w)``; a second branch ``x2 = conv3x3(x)``; then
``map = softmax(GAP(x1)) . x2 + softmax(GAP(x2)) . x1`` (dot over the c channels) and ``x * sigmoid(map)``.

Computed here with the same weights and numbers, and never leaving the (B, C, H, W) layout:

- The norm has one group a channel, so GAP(x1) is its bias, exactly, and the first term is *one* 3 x 3 convolution
  C -> 32 whose weights are ``softmax(bias) . conv3x3``. x2 is never computed.
- GAP(x2) is linear in x: the 3 x 3 weights times the mean of x over each shifted window, which the whole mean, the edge
  rows, the edge columns and the corners give (``shifted_means``).
- The shared convolutions act on all groups at once as block-diagonal ones, dots over c as a product with a
  block-diagonal matrix (B, C, 32): a little arithmetic on zeros buys plain matrix products without a change of layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FACTOR = 32


class EMA(nn.Module):
    """Reweights every pixel by attention computed in ``FACTOR`` channel groups; 10 c^2 + 4 c parameters, c = C / 32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % FACTOR:
            raise ValueError(f"EMA needs channels divisible by {FACTOR}, got {channels}")
        c = channels // FACTOR
        self.conv1x1 = nn.Conv2d(c, c, 1)
        self.conv3x3 = nn.Conv2d(c, c, 3, padding=1)
        self.norm = nn.GroupNorm(c, c)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1)  # (B, H, W, C), no copy where x is channels-last
        rows, columns = pixels.mean(2), pixels.mean(1)  # (B, H, C), (B, W, C)
        gate_h, gate_w = self.gates(torch.cat([rows, columns], 1)).split([height, width], 1)
        gated = pixels * gate_h[:, :, None] * gate_w[:, None]
        gated = gated.reshape(batch, height * width, channels)
        centred = gated - gated.mean(1, keepdim=True)
        scale = ((centred * centred).mean(1) + self.norm.eps).rsqrt().view(batch, FACTOR, -1)
        weights = self.local_weights(rows, columns, pixels)  # (B, 32, c)
        gated_term = centred @ block_columns(weights * self.norm.weight * scale)
        offset = (weights * self.norm.bias).sum(2)[:, None]  # (B, 1, 32)
        local_term = self.local_term(x).permute(0, 2, 3, 1).reshape(batch, height * width, FACTOR)
        attention = (local_term + gated_term + offset).sigmoid()  # (B, H*W, 32)
        spread = attention @ group_members(channels).to(attention)  # each group's value for each of its channels
        return x * spread.view(batch, height, width, channels).permute(0, 3, 1, 2)

    def gates(self, strips: Tensor) -> Tensor:
        """Return the gates of strips of mean values: (B, L, C) -> (B, L, C)."""
        weight = block_diagonal(self.conv1x1.weight[:, :, 0, 0])
        assert self.conv1x1.bias is not None
        return F.linear(strips, weight, self.conv1x1.bias.repeat(FACTOR)).sigmoid()

    def local_term(self, x: Tensor) -> Tensor:
        """Return ``softmax(GAP(x1)) . x2`` as one convolution: (B, C, H, W) -> (B, 32, H, W)."""
        weights = self.norm.bias.softmax(0)  # GAP(x1) is the bias of the norm
        c = len(weights)
        kernel = (weights @ self.conv3x3.weight.flatten(1)).view(1, c, 3, 3)
        dense = (
            kernel.flatten(1).repeat(FACTOR, 1).view(FACTOR, 1, c, 9) * torch.eye(FACTOR).to(x.device)[..., None, None]
        )
        assert self.conv3x3.bias is not None
        bias = (weights @ self.conv3x3.bias).repeat(FACTOR)
        return F.conv2d(x, dense.view(FACTOR, FACTOR * c, 3, 3), bias, padding=1)

    def local_weights(self, rows: Tensor, columns: Tensor, pixels: Tensor) -> Tensor:
        """Return ``softmax(GAP(x2))``, (B, 32, c), from the means of x; in single precision whatever x is in."""
        with torch.autocast(pixels.device.type, enabled=False):
            precise = torch.promote_types(pixels.dtype, self.conv3x3.weight.dtype)
            means = shifted_means(rows.to(precise), columns.to(precise), pixels)
            groups = means.reshape(len(rows) * FACTOR, -1, 3, 3)
            pooled = F.conv2d(groups, self.conv3x3.weight, self.conv3x3.bias)
            return pooled.view(len(rows), FACTOR, -1).softmax(2)


def shifted_means(rows: Tensor, columns: Tensor, pixels: Tensor) -> Tensor:
    """Return the mean over all pixels of x shifted by each tap of a 3 x 3 kernel with zero padding.

    Tap (i, j) of -1, 0, 1 sees all of x but the row and the column that leave the image at that shift.

    Args:
        rows: mean of x over W, (B, H, C).
        columns: mean of x over H, (B, W, C).
        pixels: x, (B, H, W, C).

    Returns:
        (B, C, 3, 3), the sum over the seen pixels divided by H * W.

    """
    height, width = rows.shape[1], columns.shape[1]
    none = torch.zeros_like(rows[:, 0])
    out_rows = torch.stack([rows[:, -1], none, rows[:, 0]], 2)[..., None] / height
    out_columns = torch.stack([columns[:, -1], none, columns[:, 0]], 2)[..., None, :] / width
    corners = [pixels[:, i, j].to(rows.dtype) for i in (-1, 0) for j in (-1, 0)]
    both = torch.stack([corners[0], none, corners[1], none, none, none, corners[2], none, corners[3]], 2)
    whole = rows.mean(1)[..., None, None]
    return whole - out_rows - out_columns + both.view(*both.shape[:2], 3, 3) / (height * width)


def group_members(channels: int) -> Tensor:
    """Return which group each channel belongs to, as ones in (32, C)."""
    return torch.eye(FACTOR).repeat_interleave(channels // FACTOR, 1)


def block_diagonal(weight: Tensor) -> Tensor:
    """Return the (32 a, 32 b) matrix that applies the (a, b) matrix ``weight`` within each group."""
    return torch.kron(torch.eye(FACTOR, dtype=weight.dtype, device=weight.device), weight)


def block_columns(weights: Tensor) -> Tensor:
    """Return the matrix that weighs and sums the channels of each group: (B, 32, c) -> (B, C, 32)."""
    batch, _, c = weights.shape
    eye = torch.eye(FACTOR, dtype=weights.dtype, device=weights.device)
    return (weights[..., None] * eye[:, None]).view(batch, FACTOR * c, FACTOR)
