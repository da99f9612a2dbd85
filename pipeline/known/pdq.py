"""PDQ: 256 bits that look alike for pictures that look alike.

Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019. Luminance, two passes of a box
filter, 64 x 64 samples, the lowest 16 x 16 coefficients of their DCT, and for each whether it is above the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image

Grey = npt.NDArray[np.integer | np.floating]

HASH_BYTES: Final = 32
BITS: Final = 8 * HASH_BYTES
# Samples and kept coefficients a side, shortest side that has a hash, and the sum of gradients per point of quality: as
# in the paper.
_SAMPLES, _KEPT, _MIN_SIDE_PX, _GRADIENT_PER_POINT = 64, 16, 5, 90
# Pictures from this side on are halved first: the filter blurs more than that, and halving costs almost nothing.
_HALVED_FROM_PX: Final = 768


@dataclass(frozen=True, slots=True)
class Pdq:
    """A picture's hash.

    Attributes:
        bits: `HASH_BYTES` bytes; the first one has the highest frequencies. `bits.hex()` is the usual text form.
        quality: 0 (flat) to 100 (full of structure).
    """

    bits: bytes
    quality: int


def pdq(image: Image) -> Pdq:
    """The hash of a picture.

    Args:
        image: uint8 [H, W, 3], RGB.
    """
    return pdq_of_crops(image, (0.0,))[0]


def pdq_of_crops(image: Image, cuts: Sequence[float]) -> list[Pdq]:
    """The hashes of a picture and of its middle.

    Args:
        image: uint8 [H, W, 3], RGB.
        cuts: for each hash the share of width and height that is left out at each of the four edges, below .5.
    """
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    while max(grey.shape) >= _HALVED_FROM_PX and min(grey.shape) >= 2 * _SAMPLES:
        half = (grey.shape[1] // 2, grey.shape[0] // 2)
        grey = np.asarray(cv2.resize(grey, half, interpolation=cv2.INTER_AREA))
    return [_hash(_cropped(grey, cut)) for cut in cuts]


def mirrored(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The hashes of the same pictures, mirrored left to right, but for the few bits near the median.

    Mirroring changes the sign of the coefficients with an odd number of half waves across.

    Args:
        hashes: uint64 [N, 4].
    """
    return hashes ^ _mirrored_bits()


@lru_cache(maxsize=1)
def _mirrored_bits() -> npt.NDArray[np.uint64]:
    # The first kept coefficient has one half wave, the second two.
    is_odd = np.tile(np.arange(_KEPT) % 2 == 0, _KEPT)
    return np.frombuffer(np.packbits(is_odd[::-1]).tobytes(), np.uint64)


def _cropped(grey: Grey, cut: float) -> Grey:
    top, left = (round(cut * side) for side in grey.shape)
    return grey[top : grey.shape[0] - top, left : grey.shape[1] - left]


def _hash(grey: Grey) -> Pdq:
    if min(grey.shape) < _MIN_SIDE_PX:
        return Pdq(bytes(HASH_BYTES), 0)
    luma: Floats = grey.astype(np.float32)
    # Filter, samples and DCT are linear along each side: one matrix each.
    samples = np.asarray(_sampling(luma.shape[0]) @ luma @ _sampling(luma.shape[1]).T, np.float32)
    coefficients = (_dct() @ samples @ _dct().T).ravel()
    # The lower median: half of the bits are set.
    median = np.partition(coefficients, BITS // 2 - 1)[BITS // 2 - 1]
    return Pdq(np.packbits(coefficients[::-1] > median).tobytes(), _quality(samples))


def _quality(samples: Floats) -> int:
    """How much structure the samples have: sum of their whole steps between neighbours, in percent of white."""
    steps = [np.trunc(np.diff(samples, axis=axis) * (100 / 255)) for axis in (0, 1)]
    total = sum(float(np.abs(each).sum()) for each in steps)
    return min(100, int(total / _GRADIENT_PER_POINT))


@lru_cache(maxsize=128)
def _sampling(side_px: int) -> Floats:
    """float32 [64, side]: two passes of the box filter, then the sample in the middle of each of 64 equal stretches."""
    window = (side_px + 2 * _SAMPLES - 1) // (2 * _SAMPLES)
    offset = np.arange(side_px)[None, :] - np.arange(side_px)[:, None]
    # At the edges the mean is over what is inside.
    box = ((offset >= -((window - 1) // 2)) & (offset <= window // 2)).astype(np.float64)
    box /= box.sum(axis=1, keepdims=True)
    middles = ((np.arange(_SAMPLES) + 0.5) * side_px / _SAMPLES).astype(np.int64)
    return np.ascontiguousarray(box[middles] @ box, np.float32)


@lru_cache(maxsize=1)
def _dct() -> Floats:
    """float32 [16, 64]: the DCT-II from its second row on; the first one is the mean."""
    row, column = np.arange(1, _KEPT + 1)[:, None], np.arange(_SAMPLES)[None, :]
    waves = np.cos(np.pi / (2 * _SAMPLES) * row * (2 * column + 1))
    return np.asarray(np.sqrt(2 / _SAMPLES) * waves, np.float32)
