"""Stage 2's network: ConvNeXt-Tiny from timm, giving logits and the pooled features for the contrastive term."""

from __future__ import annotations

from functools import cache

import timm
import torch
from torch import Tensor, nn

CLASSES = ("not mitotic figure", "mitotic figure")  # the order of the logits
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INPUT_PX = 64


def scale_to_fan_in(net: nn.Module) -> None:
    """Draw weights with variance 1 / fan-in (LeCun) in place of ConvNeXt's fixed 0.02.

    The fixed value makes every block's output tiny; a run of a few thousand steps spends most of them growing it.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] != len(CLASSES):
            nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)


class MatmulDepthwise(nn.Conv2d):
    """A depth-wise convolution that trains as one matrix product per channel on maps of up to ``LARGEST_PX`` pixels.

    On a CPU the gradient of a 7 x 7 depth-wise convolution takes longer than the rest of the network. On 16 x 16 pixels
    the convolution is a 256 x 256 matrix, and a batch of matrix products is what the CPU is best at. On a GPU it stays
    a convolution. Parameters, numbers and the exported graph are those of ``nn.Conv2d``.
    """

    LARGEST_PX = 256

    def __init__(self, channels: int, kernel_px: int) -> None:
        super().__init__(channels, channels, kernel_px, padding=kernel_px // 2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        batch, channels, height, width = x.shape
        if not self.training or x.is_cuda or height * width > self.LARGEST_PX or self.bias is None:
            return super().forward(x)
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            taps = self.weight.to(dtype).reshape(channels, -1) @ taps_to_matrix(
                self.kernel_size[0], height, width, dtype
            )
            matrix = taps.view(channels, height * width, height * width)
            rows = x.to(dtype).permute(1, 0, 2, 3).reshape(channels, batch, height * width)
            out = torch.bmm(rows, matrix).view(channels, batch, height, width).permute(1, 0, 2, 3)
            return out.contiguous(memory_format=torch.channels_last) + self.bias.to(dtype)[:, None, None]


@cache
def taps_to_matrix(side: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return the (side^2, H W H W) zeros and ones that spread a kernel into its matrix, input pixels first."""
    y, x = (v.reshape(-1) for v in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    row, column = (v[:, None] - v[None] + side // 2 for v in (y, x))  # (H W of the input, H W of the output)
    seen = ((row >= 0) & (row < side) & (column >= 0) & (column < side)).reshape(-1)
    spread = torch.zeros(side * side, len(seen), dtype=dtype)
    spread[(row * side + column).reshape(-1)[seen], seen.nonzero()[:, 0]] = 1
    return spread


def train_by_matmul(net: nn.Module) -> None:
    """Replace every depth-wise convolution, in place, by one with the same parameters that trains faster."""
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            faster = MatmulDepthwise(module.in_channels, module.kernel_size[0])
            faster.load_state_dict(module.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, faster)


class MitosisClassifier(nn.Module):
    """(B, 3, 64, 64) -> logits (B, 2). ``architecture`` is timm's name; ``test_convnext`` is a miniature for tests."""

    def __init__(self, architecture: str = "convnext_tiny", drop_path: float = 0.1) -> None:
        super().__init__()
        self.architecture = architecture
        # Layer scale starts at 1, not at ConvNeXt's 1e-6: that value keeps the blocks asleep for the first epochs of a
        # long run, and a run of an hour would hardly wake them.
        self.net = timm.create_model(
            architecture, pretrained=False, num_classes=2, drop_path_rate=drop_path, ls_init_value=1.0
        )
        scale_to_fan_in(self.net)
        train_by_matmul(self.net)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits alone, as exported."""
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 2) and the pooled, normalised features (B, F) that the logits are computed from."""
        features = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
        return self.net.head.fc(features), features


class MeanOfViews(nn.Module):
    """The classifier's mean logits over the eight ways to turn and flip a crop, for a mitosis has no up; as exported.

    Candidates are few, so this costs little of a slide's time.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> logits (B, 2)."""
        flipped = torch.cat([x, x.flip(2), x.flip(3), x.flip(2, 3)])
        views = torch.cat([flipped, flipped.transpose(2, 3)])  # (8 B, 3, S, S), view by view
        out: Tensor = self.model(views).view(8, -1, len(CLASSES)).mean(0)
        return out
