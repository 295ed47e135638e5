"""Equations 1 to 3 and the distillation against hand-computed values and their limit cases."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from training.networks.losses import classifier_loss, contrastive_loss, distillation_loss, focal_loss


def test_focal_by_hand() -> None:
    # p of the true class 0.8 (mitosis, alpha 1) and 0.5 (background, alpha 1.5)
    logits = torch.tensor([[0.0, math.log(4)], [0.0, 0.0]])
    expected = (1.0 * 0.2**2 * -math.log(0.8) + 1.5 * 0.5**2 * -math.log(0.5)) / 2
    assert float(focal_loss(logits, torch.tensor([1, 0]))) == pytest.approx(expected)


def test_focal_without_focus_is_weighted_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(20, 2), torch.randint(2, (20,))
    expected = cross_entropy(logits, target, weight=torch.tensor([1.5, 1.0]), reduction="sum") / 20
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0), expected)


def test_contrastive_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    # Similarities / T: 5 between the first two, 0 to the third, which has no positive and does not count.
    expected = -math.log(math.exp(5) / (math.exp(5) + 1))
    assert float(contrastive_loss(features, torch.tensor([1, 1, 0]))) == pytest.approx(expected, rel=1e-4)


def test_contrastive_limits() -> None:
    same = torch.ones(4, 3)
    assert float(contrastive_loss(same, torch.tensor([0, 0, 0, 0]))) == pytest.approx(math.log(3))
    alone = torch.randn(2, 3, requires_grad=True)
    loss = contrastive_loss(alone, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.isfinite(alone.grad).all()


def test_total_is_their_sum_and_differentiable() -> None:
    logits, features = torch.randn(8, 2, requires_grad=True), torch.randn(8, 5, requires_grad=True)
    target = torch.tensor([0, 1] * 4)
    focal, contrastive = focal_loss(logits, target), contrastive_loss(features, target)
    loss = classifier_loss(logits, features, target)
    torch.testing.assert_close(loss, focal + contrastive)
    for share in (0.0, 0.5):
        torch.testing.assert_close(classifier_loss(logits, features, target, share), focal + share * contrastive)
    loss.backward()
    assert torch.isfinite(features.grad).all()


def test_distillation_by_hand() -> None:
    # p 0.8 and 0.5 against taught 1 and 0.5: both cells, over the sum of what is taught
    scores, taught = torch.tensor([[[math.log(4), 0.0]]]), torch.tensor([[[1.0, 0.5]]])
    assert float(distillation_loss(scores, taught)) == pytest.approx((-math.log(0.8) + math.log(2)) / 1.5)


def test_distillation_is_least_where_the_student_agrees() -> None:
    torch.manual_seed(0)
    taught = torch.rand(2, 1, 50)
    scores = torch.zeros(2, 1, 50, requires_grad=True)
    agreed = distillation_loss(taught.logit(), taught)
    assert agreed < distillation_loss(taught.logit() + 0.1, taught)
    assert agreed < distillation_loss(taught.logit() - 0.1, taught)
    distillation_loss(scores, taught).backward()
    torch.testing.assert_close(scores.grad, (0.5 - taught) / taught.sum())


def test_distillation_from_nothing_divides_by_one() -> None:
    scores = torch.randn(1, 1, 9)
    expected = binary_cross_entropy_with_logits(scores, torch.zeros_like(scores), reduction="sum")
    torch.testing.assert_close(distillation_loss(scores, torch.zeros_like(scores)), expected)
