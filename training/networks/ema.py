"""EMA: efficient multi-scale attention with cross-spatial learning (arXiv 2305.13563).

Not an exponential moving average of weights: that one lives in the training loop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

FACTOR = 32


class EMA(nn.Module):
    """Reweights every pixel by attention computed in ``FACTOR`` channel groups; 10 c^2 + 4 c parameters, c = C / 32.

    Each group of c channels gets (1) gates along both axes from strip pooling and a shared 1 x 1 convolution, and (2) a
    3 x 3 convolution. Each branch's global average, as a softmax over channels, weighs the other branch's map.
    """

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
        c = channels // FACTOR
        group = x.reshape(batch * FACTOR, c, height, width)
        strips = torch.cat([group.mean(3, keepdim=True), group.mean(2, keepdim=True).transpose(2, 3)], dim=2)
        gate_h, gate_w = self.conv1x1(strips).sigmoid().split([height, width], dim=2)  # (B*32, c, H, 1), (.., W, 1)
        gated = self.norm(group * gate_h * gate_w.transpose(2, 3))
        local = self.conv3x3(group)
        attention = channel_weights(gated, local) + channel_weights(local, gated)  # (B*32, 1, H, W)
        return (group * attention.sigmoid()).reshape(batch, channels, height, width)


def channel_weights(weigher: Tensor, weighed: Tensor) -> Tensor:
    """Return ``softmax(GAP(weigher)) . weighed``, a dot product over channels: (N, c, H, W) -> (N, 1, H, W)."""
    weights = weigher.mean((2, 3), keepdim=True).softmax(1)
    return (weights * weighed).sum(1, keepdim=True)
