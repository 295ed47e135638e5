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
  block-diagonal matrix (C, 32): a little arithmetic on zeros buys plain matrix products without a change of layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.gradients import GatedTerm, StripMeans

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
        if torch.onnx.is_in_onnx_export():
            return self.by_convolutions(x)
        batch, channels, height, width = x.shape
        pixels, rows, columns = StripMeans.apply(x.permute(0, 2, 3, 1))  # (B, H, W, C): no copy where channels-last
        x = pixels.permute(0, 3, 1, 2)
        gates = self.gates(torch.cat([rows, columns], 1))
        weights = self.local_weights(rows, columns, x)  # (B, 32, c)
        scaled = weights * self.norm.weight
        gated = GatedTerm.apply(pixels, gates[:, :height], gates[:, height:], scaled, self.norm.eps)  # (B, H * W, 32)
        local = self.local_term(x).permute(0, 2, 3, 1).reshape(gated.shape)
        attention = (local + gated + self.constant(weights)[:, None].to(gated)).sigmoid()
        spread = attention @ group_members(channels).to(attention)  # each group's value for each of its channels
        out: Tensor = x * spread.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return out

    def by_convolutions(self, x: Tensor) -> Tensor:
        """Return the same by convolutions with constant weights, which runtimes fuse: the form that is exported."""
        batch, channels, height, _ = x.shape
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)  # (B, C, H, 1), (B, C, W, 1)
        strips = torch.cat([rows, columns], 2)
        assert self.conv1x1.bias is not None
        weight, bias = block_diagonal(self.conv1x1.weight.flatten(1)), self.conv1x1.bias.repeat(FACTOR)
        gates = F.conv2d(strips, weight[..., None, None], bias).sigmoid()
        gated = x * gates[:, :, :height] * gates[:, :, height:].transpose(2, 3)
        scale = self.norm.weight.repeat(FACTOR)
        normalised = F.instance_norm(gated, weight=scale, bias=torch.zeros_like(scale), eps=self.norm.eps)
        weights = self.local_weights(rows[..., 0].transpose(1, 2), columns[..., 0].transpose(1, 2), x)
        weighed = normalised * weights.view(batch, channels, 1, 1)
        members = group_members(channels).to(x)[..., None, None]  # (32, C, 1, 1)
        attention = self.local_term(x) + F.conv2d(weighed, members) + self.constant(weights)[..., None, None]
        return x * F.conv2d(attention.sigmoid(), members.transpose(0, 1))

    def constant(self, weights: Tensor) -> Tensor:
        """Return what the norm's and the convolution's biases add to each group's attention: (B, 32, c) -> (B, 32)."""
        assert self.conv3x3.bias is not None
        return (self.norm.bias.softmax(0) * self.conv3x3.bias + weights * self.norm.bias).sum(2)

    def gates(self, strips: Tensor) -> Tensor:
        """Return the gates of strips of mean values: (B, L, C) -> (B, L, C)."""
        assert self.conv1x1.bias is not None
        weight = block_diagonal(self.conv1x1.weight.flatten(1))
        return F.linear(strips, weight, self.conv1x1.bias.repeat(FACTOR)).sigmoid()

    def local_term(self, x: Tensor) -> Tensor:
        """Return ``softmax(GAP(x1)) . x2`` less its bias as one convolution: (B, C, H, W) -> (B, 32, H, W)."""
        weights = self.norm.bias.softmax(0)[:, None]  # GAP(x1) is the bias of the norm
        kernel = (weights * self.conv3x3.weight.flatten(1)).sum(0).view(1, -1, 9)  # (1, c, 9)
        taps = torch.cat([block_diagonal(tap) for tap in kernel.unbind(2)], 1)  # (32, 9 C)
        dense = taps.view(FACTOR, 9, -1).transpose(1, 2).reshape(FACTOR, -1, 3, 3)
        return F.conv2d(x, dense, padding=1)

    def local_weights(self, rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
        """Return ``softmax(GAP(x2))``, (B, 32, c), from the means of x; in single precision whatever x is in."""
        with torch.autocast(x.device.type, enabled=False):
            precise = torch.promote_types(x.dtype, self.conv3x3.weight.dtype)
            means = shifted_means(rows.to(precise), columns.to(precise), corners(x).to(precise))
            windows = means.reshape(rows.shape[0], FACTOR, -1)  # (B, 32, 9 c)
            assert self.conv3x3.bias is not None
            pooled = (windows[:, :, None] * self.conv3x3.weight.flatten(1)).sum(3) + self.conv3x3.bias
            return pooled.softmax(2)


def corners(x: Tensor) -> Tensor:
    """Return the pixels in the corners, last before first: (B, C, H, W) -> (B, C, 2, 2)."""
    edges = torch.cat([x[:, :, -1:], x[:, :, :1]], 2)
    return torch.cat([edges[..., -1:], edges[..., :1]], 3)


def shifted_means(rows: Tensor, columns: Tensor, corners: Tensor) -> Tensor:
    """Return the mean over all pixels of x shifted by each tap of a 3 x 3 kernel with zero padding.

    Tap (i, j) of -1, 0, 1 sees all of x but the row and the column that leave the image at that shift.

    Args:
        rows: mean of x over W, (B, H, C).
        columns: mean of x over H, (B, W, C).
        corners: x in the corners, last before first, (B, C, 2, 2).

    Returns:
        (B, C, 3, 3), the sum over the seen pixels divided by H * W.

    """
    height, width = rows.shape[1], columns.shape[1]
    none = torch.zeros_like(rows[:, 0])
    lost_rows = torch.stack([rows[:, -1], none, rows[:, 0]], 2)[..., None] / height
    lost_columns = torch.stack([columns[:, -1], none, columns[:, 0]], 2)[..., None, :] / width
    last, first = (torch.stack([corner[..., 0], none, corner[..., 1]], 2) for corner in corners.unbind(2))
    lost_twice = torch.stack([last, torch.zeros_like(last), first], 2) / (height * width)
    return rows.mean(1)[..., None, None] - lost_rows - lost_columns + lost_twice


def group_members(channels: int) -> Tensor:
    """Return which group each channel belongs to, as ones in (32, C)."""
    return torch.eye(FACTOR).repeat_interleave(channels // FACTOR, 1)


def block_diagonal(weight: Tensor) -> Tensor:
    """Return the (32 a, 32 b) matrix that applies the (a, b) matrix ``weight`` within each group."""
    rows, columns = weight.shape
    eye = torch.eye(FACTOR, dtype=weight.dtype, device=weight.device)
    return (eye[:, None, :, None] * weight[:, None]).reshape(FACTOR * rows, FACTOR * columns)
