"""Cross entropy with labels that can be mixed or unknown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_mean(each: Tensor, known: Tensor) -> Tensor:
    """Mean of the losses [B] of the known items; 0 if there are none.

    Args:
        each: float [B].
        known: bool or float [B].
    """
    known = known.float()
    return (each * known).sum() / known.sum().clamp(min=1)


def soft_cross_entropy(logits: Tensor, fake_share: Tensor, known: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy with soft labels, over the items whose label is known.

    Args:
        logits: float [B, 2].
        fake_share: float [B], 0 for a real, 1 for a fake, between them for a mix.
        known: bool [B].
        label_smoothing: the share of each label that is spread over both classes.
    """
    targets = torch.stack([1 - fake_share, fake_share], 1)
    each = F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
    return masked_mean(each, known)


def bernoulli_kl(target: Tensor, log_odds: Tensor) -> Tensor:
    """KL divergence [B] from the target's two-class distribution to the one with these log-odds.

    The target gets no gradient.

    Args:
        target: log-odds, float [B].
        log_odds: float [B].
    """
    target = target.detach()
    share = target.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(target, share, reduction="none")
    return F.binary_cross_entropy_with_logits(log_odds, share, reduction="none") - entropy
