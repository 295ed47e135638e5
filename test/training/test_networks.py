"""The paper's blocks against plain loops and formulas written independently, and the networks built from them."""

import pytest
import torch
from torch.nn.functional import conv2d, group_norm

from training.networks.convnext import MatmulDepthwise, MeanOfViews, MitosisClassifier
from training.networks.ema import EMA
from training.networks.gradients import NormalisedAggregation
from training.networks.lsconv import LSConv, aggregate, by_kernel
from training.networks.yolo11 import HEAD_LAYERS, MitosisDetector, WithEMA, architecture_name, variant_and_scale


def test_aggregate_equals_a_plain_loop() -> None:
    torch.manual_seed(0)
    x, kernels = torch.randn(2, 16, 5, 4, dtype=torch.float64), torch.randn(2, 2, 9, 5, 4, dtype=torch.float64)
    expected = torch.zeros_like(x)
    for b, c, h, w in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                if 0 <= h + i < 5 and 0 <= w + j < 4:
                    expected[b, c, h, w] += x[b, c, h + i, w + j] * kernels[b, c % 2, 3 * (i + 1) + (j + 1), h, w]
    torch.testing.assert_close(aggregate(by_kernel(x), kernels).view(x.shape), expected)


def test_gradients_of_the_aggregation_equal_finite_differences() -> None:
    torch.manual_seed(1)
    shapes = (1, 16, 3, 4), (1, 18, 3, 4), (18,), (18,)  # image, kernels, weight and bias of their norm
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *x: NormalisedAggregation.apply(*x, 1e-5), inputs)


def test_lsconv_is_identity_plus_normalised_aggregation() -> None:
    torch.manual_seed(2)
    block = LSConv(16).eval()
    x = torch.randn(1, 16, 6, 6)
    kernels = block.kernels.norm(block.kernels(x)).view(1, 2, 9, 6, 6)
    torch.testing.assert_close(block(x), block.norm(aggregate(by_kernel(x), kernels).view(x.shape)) + x)
    with pytest.raises(ValueError, match="divisible by 8"):
        LSConv(12)


def test_ema_equals_the_formula() -> None:
    torch.manual_seed(3)
    block = EMA(64).double()
    x = torch.randn(2, 64, 5, 7, dtype=torch.float64)
    out = block(x)
    c = 2
    for b in range(2):
        for g in range(32):
            part = x[b, g * c : (g + 1) * c]  # (c, H, W)
            weight, bias = block.conv1x1.weight[:, :, 0, 0], block.conv1x1.bias[:, None]
            gate_h = torch.sigmoid(weight @ part.mean(2) + bias)  # (c, H)
            gate_w = torch.sigmoid(weight @ part.mean(1) + bias)  # (c, W)
            gated = part * gate_h[:, :, None] * gate_w[:, None, :]
            x1 = group_norm(gated[None], c, block.norm.weight, block.norm.bias, block.norm.eps)[0]
            x2 = conv2d(part[None], block.conv3x3.weight, block.conv3x3.bias, padding=1)[0]
            one, two = (torch.softmax(y.mean((1, 2)), 0) for y in (x1, x2))
            attention = torch.einsum("c,chw->hw", one, x2) + torch.einsum("c,chw->hw", two, x1)
            torch.testing.assert_close(out[b, g * c : (g + 1) * c], part * torch.sigmoid(attention))


def test_ema_parameter_count() -> None:
    c = 4
    assert sum(p.numel() for p in EMA(32 * c).parameters()) == 10 * c * c + 4 * c


@pytest.mark.parametrize("scale", "nsmlx")
def test_improved_has_the_papers_blocks_in_all_places(scale: str) -> None:
    model = MitosisDetector("improved", scale)  # type: ignore[arg-type]
    for index in HEAD_LAYERS:
        layer = model.model[index]
        assert isinstance(layer, WithEMA)
        convolutions = [m for m in layer.block.m.modules() if isinstance(m, LSConv)]
        assert len(convolutions) >= 2, f"layer {index}"
        assert not any(m.kernel_size == (3, 3) for m in layer.block.m.modules() if isinstance(m, torch.nn.Conv2d))
    assert sum(isinstance(m, EMA) for m in model.model[10].modules()) == len(model.model[10].m)


@pytest.mark.parametrize("variant", ["stock", "improved"])
def test_one_training_step_lowers_the_loss_and_reaches_every_weight(variant: str) -> None:
    torch.manual_seed(4)
    model = MitosisDetector(variant, "n").train()  # type: ignore[arg-type]
    batch = {
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.3, 0.3], [0.3, 0.6, 0.3, 0.3]]),
    }
    x = torch.rand(2, 3, 128, 128)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss = model.loss(batch, model.forward(x))[0].sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_stock_x_has_the_published_size() -> None:
    count = sum(p.numel() for p in MitosisDetector("stock", "x").parameters())
    assert count / 1e6 == pytest.approx(56.9, abs=0.05)


def test_classifier_gives_logits_and_features() -> None:
    model = MitosisClassifier("test_convnext", drop_path=0.0).eval()
    logits, features = model.with_features(torch.randn(3, 3, 64, 64))
    assert logits.shape == (3, 2)
    assert features.ndim == 2
    torch.testing.assert_close(model.net.head.fc(features), logits)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (4, 7), (2, 2)])
def test_depthwise_by_matrices_equals_the_convolution(height: int, width: int) -> None:
    """Numbers and gradients are those of nn.Conv2d."""
    torch.manual_seed(4)
    layer = MatmulDepthwise(6, 7).double()
    x = torch.randn(3, 6, height, width, dtype=torch.float64, requires_grad=True)
    weigh = torch.randn(3, 6, height, width, dtype=torch.float64)
    assert layer.bias is not None
    wanted = conv2d(x, layer.weight, layer.bias, padding=3, groups=6)
    inputs = (x, layer.weight, layer.bias)
    torch.testing.assert_close(layer.train()(x), wanted)
    torch.testing.assert_close(layer.eval()(x), wanted)
    for found, expected in zip(
        torch.autograd.grad((layer.train()(x) * weigh).sum(), inputs),
        torch.autograd.grad((wanted * weigh).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_the_mean_of_views_does_not_depend_on_how_a_crop_lies() -> None:
    torch.manual_seed(5)
    model = MeanOfViews(MitosisClassifier("test_convnext").eval())
    x = torch.randn(3, 3, 64, 64)
    expected = torch.stack([model.model(torch.rot90(y, k, (2, 3))) for y in (x, x.flip(3)) for k in range(4)]).mean(0)
    for y in (x, x.flip(2), torch.rot90(x, 1, (2, 3))):
        torch.testing.assert_close(model(y), expected)


def test_a_networks_name_says_what_it_is() -> None:
    for variant in ("stock", "improved"):
        for scale in "nsmlx":
            assert variant_and_scale(architecture_name(variant, scale)) == (variant, scale)
    assert variant_and_scale("yolo11n stock int8") == ("stock", "n")
    with pytest.raises(ValueError, match="yolov8n: is no YOLO11"):
        variant_and_scale("yolov8n")
