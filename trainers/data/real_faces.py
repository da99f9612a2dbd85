"""Real faces of a manifest held in memory, for training on reals only."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Image
from trainers.data.images import ImageStore
from trainers.data.manifest import REAL, Manifest, ManifestError

# Large enough for the largest autoencoder's input at 0.8 of the crop; 2,000 of them take 150 MB.
_SIDE_PX = 160


def sample_reals(manifest: Manifest, *, split: str, count: int, seed: int) -> list[Image]:
    """Reals uint8 [160, 160, 3], RGB, each dataset equally often if it has enough.

    Raises:
        ManifestError: the split has no reals.
        trainers.data.images.ImageError: an image is missing or damaged.
    """
    rows = manifest.where(split=split)
    rows = rows.take(rows.label == REAL)
    if not len(rows):
        raise ManifestError(f"split {split!r} has no reals")
    rng = np.random.default_rng((seed, 6))
    # The n-th of each dataset before any (n+1)-th.
    order = rng.permutation(len(rows))
    turn = np.zeros(len(rows), np.int64)
    for dataset in np.unique(rows.dataset):
        members = order[rows.dataset[order] == dataset]
        turn[members] = np.arange(len(members))
    chosen = order[np.argsort(turn[order], kind="stable")][:count]
    store = ImageStore(rows.root)
    return [
        np.asarray(cv2.resize(store.load(str(rows.path[i])), (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA))
        for i in chosen
    ]
