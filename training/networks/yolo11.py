"""YOLO11, stock and as the paper improves it, at every scale, on unmodified Ultralytics blocks.

Ultralytics' YAML parser cannot learn new blocks without edits to the package. So the stock network is built first and
the paper's blocks are put in its place; each keeps the graph attributes (``i``, ``f``, ``type``, ``np``) of what it
replaces.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules import C2PSA, C3k2, Conv
from ultralytics.nn.modules.block import C3k
from ultralytics.nn.tasks import DetectionModel

from training.networks.ema import EMA
from training.networks.lsconv import LSConv, by_kernel

Variant = Literal["stock", "improved"]
Scale = Literal["n", "s", "m", "l", "x"]

ATTENTION_LAYER = 10
HEAD_LAYERS = (16, 19, 22)  # what feeds Detect: P3/8, P4/16, P5/32


def architecture_name(variant: str, scale: str) -> str:
    """Name a network as a bundle's description does: yolo11n stock."""
    return f"yolo11{scale} {variant}"


def variant_and_scale(architecture: str) -> tuple[Variant, Scale]:
    """Read ``architecture_name``'s form; raises ValueError."""
    found = re.fullmatch(r"yolo11([nsmlx]) (stock|improved)\b.*", architecture)
    if not found:
        raise ValueError(f"{architecture}: is no YOLO11 of ours, stock or improved, of scale n, s, m, l or x")
    return found[2], found[1]  # type: ignore[return-value]


class PSABlockEMA(nn.Module):
    """A position-sensitive block whose attention is EMA; the feed-forward half stays as in YOLO11."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attn = EMA(channels)
        self.ffn = nn.Sequential(Conv(channels, 2 * channels, 1), Conv(2 * channels, channels, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.attn(x)
        out: Tensor = x + self.ffn(x)
        return out


class LSBottleneck(nn.Module):
    """A bottleneck whose two 3 x 3 convolutions are LSConv. LSConv keeps its width, so there is no squeeze."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = LSConv(channels)
        self.cv2 = LSConv(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), with the bottleneck's own shortcut."""
        out: Tensor = self.cv2(self.cv1(x))
        return (by_kernel(x) + by_kernel(out)).view(x.shape)  # a sum in LSConv's own view: no new layout once exported


class WithEMA(nn.Module):
    """A head block followed by EMA, so that Detect and the next downsampling both see the attended map."""

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.block = block
        self.attention = EMA(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C, H, W)."""
        out: Tensor = self.attention(by_halves(self.block, x) if torch.onnx.is_in_onnx_export() else self.block(x))
        return out


def by_halves(block: C3k2, x: Tensor) -> Tensor:
    """Return ``block(x)`` with its first convolution as two, one a half: the form that is exported.

    A split of its output costs a copy, and a slow one where what follows wants another layout than the convolution.
    """
    conv = block.cv1.conv
    if conv.bias is None:  # its norm is not folded into it
        whole: Tensor = block(x)
        return whole
    halves = zip(conv.weight.chunk(2), conv.bias.chunk(2), strict=True)
    parts = [block.cv1.act(F.conv2d(x, weight, bias)) for weight, bias in halves]
    for inner in block.m:
        parts.append(inner(parts[-1]))
    out: Tensor = block.cv2(torch.cat(parts, 1))
    return out


class MitosisDetector(DetectionModel):  # type: ignore[misc]
    """YOLO11 with one class, mitotic figure; random weights."""

    def __init__(self, variant: Variant, scale: Scale) -> None:
        super().__init__(f"yolo11{scale}.yaml", ch=3, nc=1, verbose=False)
        self.args = get_cfg()  # the default loss gains, which the paper uses
        self.names = {0: "mitotic figure"}
        self.architecture = architecture_name(variant, scale)
        if variant == "improved":
            improve(self)


def improve(model: DetectionModel) -> None:
    """Put the paper's three changes into a stock YOLO11, in place."""
    layers = model.model
    attention: C2PSA = layers[ATTENTION_LAYER]
    attention.m = nn.Sequential(*(PSABlockEMA(attention.c) for _ in attention.m))
    for index in HEAD_LAYERS:
        block: C3k2 = layers[index]
        replace_convolutions(block)
        layers[index] = in_place_of(block, WithEMA(block, block.cv2.conv.out_channels))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03  # as Ultralytics sets it on its own layers


def replace_convolutions(block: C3k2) -> None:
    """Make every bottleneck inside a C3k2 (or inside its C3k parts) an LSConv one."""
    for position, inner in enumerate(block.m):
        if isinstance(inner, C3k):
            inner.m = nn.Sequential(*(LSBottleneck(inner.cv1.conv.out_channels) for _ in inner.m))
        else:
            block.m[position] = LSBottleneck(block.c)


def in_place_of(old: nn.Module, new: nn.Module) -> nn.Module:
    """Give ``new`` the place in Ultralytics' layer graph that ``old`` holds."""
    for name in ("i", "f", "type"):
        setattr(new, name, getattr(old, name))
    new.np = sum(p.numel() for p in new.parameters())  # type: ignore[assignment]
    return new
