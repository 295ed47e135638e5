"""The fast algebra of EMA and LSConv against the blocks as published: same numbers, same gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable

import published_form
import pytest
import torch
from torch import Tensor, nn

from training.networks.ema import EMA
from training.networks.lsconv import LSConv


def off_their_start(block: nn.Module) -> nn.Module:
    """Draw every weight anew: norms start at weight 1 and bias 0, where much cancels."""
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def values_and_gradients(block: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> dict[str, Tensor]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    block.zero_grad()
    out = forward(x)
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape).to(out)).sum().backward()
    assert x.grad is not None
    found = {"output": out.detach(), "input": x.grad}
    return found | {name: copy.copy(p.grad) for name, p in block.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(9, 7), (2, 3), (1, 4)])
@pytest.mark.parametrize(("kind", "channels"), [(EMA, 32), (EMA, 96), (LSConv, 8), (LSConv, 32)])
def test_equals_the_published_form(
    kind: type[nn.Module], channels: int, size: tuple[int, int], layout: torch.memory_format
) -> None:
    """In double precision, where nothing but an error of algebra can differ; images off centre by a constant, too."""
    torch.manual_seed(0)
    block = off_their_start(kind(channels)).double()
    published = published_form.ema if kind is EMA else published_form.lsconv
    x = (torch.randn(2, channels, *size, dtype=torch.float64) + 0.7).to(memory_format=layout)
    found = values_and_gradients(block, block, x)
    expected = values_and_gradients(block, lambda x: published(block, x), x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("size", [(9, 7), (1, 4)])
def test_the_exported_form_of_ema_equals_the_published_form(size: tuple[int, int]) -> None:
    torch.manual_seed(2)
    block = off_their_start(EMA(96)).double()
    x = torch.randn(2, 96, *size, dtype=torch.float64) + 0.7
    torch.testing.assert_close(block.by_convolutions(x), published_form.ema(block, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(9, 7), (1, 4)])
def test_the_exported_form_of_lsconv_equals_the_published_form(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    block = off_their_start(LSConv(32)).double()
    x = torch.randn(2, 32, *size, dtype=torch.float64) + 0.7
    block(x)  # moves the statistics of the norms off their start
    block.eval()
    found = block.by_multiply_adds(x, block.kernels.norm(block.kernels(x)))
    torch.testing.assert_close(found, published_form.lsconv(block, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "channels"), [(EMA, 64), (LSConv, 64)])
def test_stays_within_1e_5_in_single_precision(kind: type[nn.Module], channels: int) -> None:
    torch.manual_seed(1)
    block = kind(channels)
    published = published_form.ema if kind is EMA else published_form.lsconv
    x = torch.nn.functional.silu(torch.randn(2, channels, 40, 40)).to(memory_format=torch.channels_last)
    torch.testing.assert_close(block(x), published(block, x), rtol=1e-5, atol=1e-5)
    block.eval()
    exported = block.by_convolutions if isinstance(block, EMA) else block.by_multiply_adds
    kernels = (block.kernels.norm(block.kernels(x)),) if isinstance(block, LSConv) else ()
    torch.testing.assert_close(exported(x, *kernels), published(block, x), rtol=1e-5, atol=1e-5)
