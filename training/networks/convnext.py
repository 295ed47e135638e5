"""Stage 2's network: ConvNeXt-Tiny from timm, giving logits and the pooled features for the contrastive term."""

from __future__ import annotations

import timm
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

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits alone, as exported."""
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, 2) and the pooled, normalised features (B, F) that the logits are computed from."""
        features = self.net.forward_head(self.net.forward_features(x), pre_logits=True)
        return self.net.head.fc(features), features
