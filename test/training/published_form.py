"""The paper's blocks as published, operation by operation: slow, and only here, to check the faster algebra against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.ema import EMA, FACTOR
from training.networks.lsconv import KernelPredictor, LSConv


def ema(block: EMA, x: Tensor) -> Tensor:
    """EMA of arXiv 2305.13563 with the weights of ``block``: (B, C, H, W) -> (B, C, H, W)."""
    batch, channels, height, width = x.shape
    group = x.reshape(batch * FACTOR, channels // FACTOR, height, width)
    strips = torch.cat([group.mean(3, keepdim=True), group.mean(2, keepdim=True).transpose(2, 3)], dim=2)
    gate_h, gate_w = block.conv1x1(strips).sigmoid().split([height, width], dim=2)
    gated = block.norm(group * gate_h * gate_w.transpose(2, 3))
    local = block.conv3x3(group)
    attention = channel_weights(gated, local) + channel_weights(local, gated)
    return (group * attention.sigmoid()).reshape(batch, channels, height, width)


def channel_weights(weigher: Tensor, weighed: Tensor) -> Tensor:
    """Return ``softmax(GAP(weigher)) . weighed``, a dot product over channels: (N, c, H, W) -> (N, 1, H, W)."""
    return (weigher.mean((2, 3), keepdim=True).softmax(1) * weighed).sum(1, keepdim=True)


def kernels(predictor: KernelPredictor, x: Tensor) -> Tensor:
    """LKP of arXiv 2503.23135: (B, C, H, W) -> (B, C/8, 9, H, W)."""
    raw = predictor.predict(predictor.mix(predictor.look(predictor.reduce(x))))
    batch, _, height, width = raw.shape
    return predictor.norm(raw).view(batch, predictor.groups, 9, height, width)


def lsconv(block: LSConv, x: Tensor) -> Tensor:
    """LSConv of arXiv 2503.23135 with the weights of ``block``; nine shifted products of whole images."""
    taps = kernels(block.kernels, x)
    batch, channels, height, width = x.shape
    groups = taps.shape[1]
    padded = F.pad(x, (1, 1, 1, 1)).reshape(batch, channels // groups, groups, height + 2, width + 2)
    shifted = [padded[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    total = sum(part * taps[:, None, :, tap] for tap, part in enumerate(shifted))
    assert isinstance(total, Tensor)
    out: Tensor = block.norm(total.reshape(x.shape)) + x
    return out
