"""Equal outputs for an image and its degraded copy: blur, noise and compression are not a forgery.

The clean output is the target and gets no gradient: the degraded output should match the clean one, not
the other way round (as in Xie et al., "Unsupervised Data Augmentation for Consistency Training", 2020).
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from trainers.losses.classes import bernoulli_kl


def log_odds_consistency(clean: Tensor, degraded: Tensor) -> Tensor:
    """KL divergence between the outputs for the clean and the degraded copy, in nats.

    Args:
        clean: log-odds, float [M]; the target.
        degraded: log-odds, float [M].
    """
    return bernoulli_kl(clean, degraded).mean()


def feature_consistency(clean: Tensor, degraded: Tensor) -> Tensor:
    """1 - cosine between the features [M, F] of the clean (the target) and the degraded copy."""
    return (1 - F.cosine_similarity(clean.detach().float(), degraded.float(), dim=1)).mean()
