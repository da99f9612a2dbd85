"""Aligned mixup: the real and the fake of one frame and box, mixed pixel by pixel, with labels mixed the same way.

Zhang et al., "mixup" (ICLR 2018), but within a pair: the picture between a real and its own fake shows one face, with
a weaker forgery. The third place of the DFDC challenge overfitted within a few epochs without it
(github.com/NTech-Lab/deepfake-detection-challenge).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainers.data.manifest import FAKE, REAL
from trainers.losses.config import MixupConfig

# Batch entries mixed in the same parts as the images, if present.
_MIXED = ("masks", "fake_share", "thresholds")


def mix_pairs(batch: Mapping[str, Tensor], config: MixupConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """Mix a share of the pairs that can be mixed: a real and a fake that are pixel-aligned.

    The place of the real gets the mix with the smaller part t <= 1/2 of the fake, the place of the fake the one with
    1 - t, so a pair keeps its mean label and its order. A known mask marks alignment.

    Args:
        batch: `images`, uint8 [B, 3, S, S], pairs adjacent; `labels`, int64 [B]; `mask_known`, bool [B]; and,
            mixed the same way if present, `masks`, `fake_share` and `thresholds`, each [B, ...].
        config: share and distribution.
        rng: draws the same numbers for all batches of one size.

    Returns:
        The batch with mixed values, and `mixed`, bool [B].
    """
    pairs = len(batch["images"]) // 2
    chosen = np.flatnonzero(rng.random(pairs) < config.share)
    drawn = rng.beta(config.alpha, config.alpha, pairs)[chosen]
    device = batch["images"].device
    real = torch.from_numpy(2 * chosen).to(device)
    fake = real + 1
    labels, known = batch["labels"], batch["mask_known"]
    aligned = (labels[real] == REAL) & (labels[fake] == FAKE) & known[real] & known[fake]
    part = torch.from_numpy(np.minimum(drawn, 1 - drawn).astype(np.float32)).to(device) * aligned
    mixed = {name: _mixed(batch[name], real, fake, part) for name in ("images", *_MIXED) if name in batch}
    touched = torch.zeros(len(labels), dtype=torch.bool, device=device)
    touched[real] = touched[fake] = part > 0
    return {**batch, **mixed, "mixed": touched}


def _mixed(values: Tensor, real: Tensor, fake: Tensor, part: Tensor) -> Tensor:
    """A copy in which the rows `real` and `fake` exchange a part of each other."""
    first, second = values[real].float(), values[fake].float()
    step = part.view(-1, *[1] * (values.ndim - 1)) * (second - first)
    changed = values.clone()
    for rows, new in ((real, first + step), (fake, second - step)):
        changed[rows] = new.to(values.dtype) if values.is_floating_point() else new.round().to(values.dtype)
    return changed
