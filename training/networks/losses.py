"""Stage 2's loss, ``L = L_focal + lambda L_contrastive`` (the paper's equations 1 to 3), and stage 1's distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA = (1.5, 1.0)  # weight of background and of mitosis (paper)
GAMMA = 2.0
TEMPERATURE = 0.2
LAMBDA = 1.0


def focal_loss(logits: Tensor, target: Tensor, alpha: tuple[float, float] = ALPHA, gamma: float = GAMMA) -> Tensor:
    """Equation 2: mean over the batch of ``-alpha_c (1 - p_c)^gamma log p_c``; gamma 0 is weighted cross-entropy.

    Args:
        logits: (B, 2).
        target: (B,) class index.
        alpha: weight per class; the mean divides by B and not by the sum of the weights.
        gamma: focusing parameter.

    """
    log_p = F.log_softmax(logits, dim=1).gather(1, target[:, None])[:, 0]
    weight = torch.tensor(alpha, dtype=logits.dtype, device=logits.device)[target]
    return -(weight * (1 - log_p.exp()) ** gamma * log_p).mean()


def contrastive_loss(features: Tensor, target: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Equation 3 in its standard form, supervised contrastive loss (Khosla et al. 2020, L_out).

    Equation 3 as printed has one positive a sample and keeps the sample itself in the denominator, where its
    similarity of 1 to itself dominates and never trains. So the sample is left out of the denominator and the loss is
    averaged over all its positives, which also makes it independent of which positive would have been drawn. Samples
    without a positive in the batch do not count.

    Args:
        features: (B, F), of any length; cosine similarity is used.
        target: (B,) class index.
        temperature: T, steepness of the similarities.

    """
    unit = F.normalize(features, dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similarity = (unit @ unit.T / temperature).masked_fill(itself, -torch.inf)
    log_p = similarity - similarity.logsumexp(1, keepdim=True)
    positive = (target[:, None] == target[None]) & ~itself
    per_sample = -log_p.masked_fill(~positive, 0.0).sum(1) / positive.sum(1).clamp(min=1)
    has_positive = positive.any(1)
    return per_sample[has_positive].mean() if has_positive.any() else features.sum() * 0.0


def classifier_loss(logits: Tensor, features: Tensor, target: Tensor, contrastive: float = LAMBDA) -> Tensor:
    """Equation 1 with the paper's constants; ``contrastive`` is its lambda."""
    return focal_loss(logits, target) + contrastive * contrastive_loss(features, target)


def distillation_loss(scores: Tensor, taught: Tensor) -> Tensor:
    """Cross-entropy of a detector's scores with its teachers' probabilities, normalised as Ultralytics' class loss is.

    Networks of all scales have the same anchors, so that each is compared with itself. What the labels call tissue
    but resembles a mitosis gets its due, and so does a mitosis beside a patch's own, which has no label.

    Args:
        scores: (B, 1, A) logits.
        taught: (B, 1, A) probabilities, 0..1.

    """
    return F.binary_cross_entropy_with_logits(scores, taught, reduction="sum") / taught.sum().clamp(min=1)
