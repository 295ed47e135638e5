"""EMA and LSConv as ONNX against torch: same numbers, any batch size."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from training.export import export_onnx
from training.networks.ema import EMA
from training.networks.lsconv import LSConv


@pytest.mark.parametrize("kind", [EMA, LSConv])
def test_onnx_equals_torch_at_another_batch_size(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = kind(64).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    export_onnx(block, (1, 64, 12, 12), tmp_path / "block.onnx")
    x = np.random.default_rng(0).normal(0.5, 1, (3, 64, 12, 12)).astype(np.float32)
    found = onnxruntime.InferenceSession(str(tmp_path / "block.onnx")).run(None, {"images": x})[0]
    with torch.no_grad():
        expected = block(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
