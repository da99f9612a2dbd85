"""Whether a face is covered by something: a mask, a hand, a microphone, an opaque box.

A small convolutional network in numpy: four 3x3 convolutions of stride 2 with ReLU, mean and maximum over the rest, and
a linear layer. `trainers/covers.py` trains it on made covers. It works on a patch standardised as a whole, so that
neither brightness nor contrast counts.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np

from models.spec import LandmarkTemplate
from models.zoo import packaged_dir
from pipeline.faces.crop import crop_squares
from pipeline.faces.pyramid import Pyramid
from pipeline.types import Faces, Floats, Image

WEIGHTS = packaged_dir() / "covers.npz"
PATCH_PX = 64
# Part of the crop that the detectors' networks see: what is just outside of a face is no cover.
ZOOM = 0.92
# A face counts as covered above these log-odds. Of 5,620 natural crops of five sets, real and fake, none is above, and
# of 14,250 blurred, noisy, grey, small or compressed copies 6 are; chosen on these.
MIN_COVERED = 1.5
# Added to a patch's standard deviation, in grey levels, so that noise in a plain patch is not amplified.
_FLOOR = 8.0


def cover_patches(image: Image, faces: Faces) -> Image:
    """The inner part of each face, upright: uint8 [N, PATCH_PX, PATCH_PX, 3], black outside the picture.

    Args:
        image: uint8 [H, W, 3], RGB.
        faces: N faces in pixels of `image`.
    """
    patches = np.zeros((len(faces), PATCH_PX, PATCH_PX, 3), np.uint8)
    for patch, (x0, y0, side) in zip(patches, crop_squares(faces, LandmarkTemplate()).tolist(), strict=True):
        border = side * (1 - ZOOM) / 2
        square = np.array([x0 + border, y0 + border, side * ZOOM], np.float32)
        patch[:] = Pyramid.around(image, square).patches(square[None], PATCH_PX)[0]
    return patches


def cover_log_odds(patch: Image, weights: Path = WEIGHTS) -> float:
    """Log-odds that something covers a face, by the network's balance of classes.

    Args:
        patch: uint8 [PATCH_PX, PATCH_PX, 3], one of `cover_patches`.
        weights: file of the network: each layer's weight and bias, `weight0`, `bias0` and so on. Without the file, as
            in builds that leave research weights out, nothing is covered: -inf.
    """
    layers = _layers(weights)
    if not layers:
        return -math.inf
    values = patch.astype(np.float32)
    maps = np.ascontiguousarray(((values - values.mean()) / (values.std() + _FLOOR)).transpose(2, 0, 1))
    for weight, bias in layers[:-1]:
        maps = np.maximum(_convolved(maps, weight, bias), 0)
    weight, bias = layers[-1]
    natural, covered = (weight @ np.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))]) + bias).tolist()
    return float(covered - natural)


def _convolved(maps: Floats, weight: Floats, bias: Floats) -> Floats:
    """3x3, stride 2, no padding: [C, H, W] by [F, 9 C], ordered by row, column, channel, to [F, h, w]."""
    height, width = ((length - 3) // 2 + 1 for length in maps.shape[1:])
    shifted = [maps[:, y : y + 2 * height : 2, x : x + 2 * width : 2] for y in range(3) for x in range(3)]
    columns = np.concatenate(shifted).reshape(-1, height * width)
    return np.asarray((weight @ columns + bias[:, None]).reshape(len(bias), height, width))


@functools.cache
def _layers(weights: Path) -> tuple[tuple[Floats, Floats], ...]:
    if not weights.exists():
        return ()
    with np.load(weights) as stored:
        count = len(stored.files) // 2
        return tuple(
            (stored[f"weight{n}"].astype(np.float32), stored[f"bias{n}"].astype(np.float32)) for n in range(count)
        )
