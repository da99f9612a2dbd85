"""Duplicate pictures: equal once decoded, or nearly equal."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Image

Hashes = npt.NDArray[np.uint64]

# Bits of 64 that may differ between two pictures that are nearly the same; recompression changes few. All faces have
# eyes and mouth in the same places, so half of the pairs this near still show two people; SAME_SHAPE separates them.
NEAR_BITS = 3
# Required correlation of their small grey copies. In DFDC, pairs above it show one actor in one take.
SAME_SHAPE = 0.95
_SMALL_PX = 16
# Pairs that are compared bit by bit; larger sets are only searched for equal hashes.
_MAX_PAIRS = 4_000_000_000
_PAIRS_AT_ONCE = 8_000_000  # some 100 MB
_BITS_OF_16 = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def pixel_hash(image: Image) -> bytes:
    """16 bytes over the size and the decoded pixels of a picture: blake2b."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def difference_hash(image: Image) -> int:
    """64 bits: for 8 x 8 places of the shrunk grey picture, whether it gets brighter to the right.

    dHash, as in N. Krawetz, "Kind of Like That", 2013 (hackerfactor.com/blog/index.php?/archives/529).
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def small_copy(image: Image) -> Image:
    """The picture in grey and very small: uint8 [16, 16]."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (_SMALL_PX, _SMALL_PX), interpolation=cv2.INTER_AREA))


def same_shape(first: Image, second: Image) -> bool:
    """Whether two small copies show the same, whatever their brightness and contrast."""
    a, b = (small.astype(np.float64).ravel() - small.mean() for small in (first, second))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return norm > 0 and float(a @ b) / norm >= SAME_SHAPE


def near(first: Hashes, second: Hashes, bits: int = NEAR_BITS) -> npt.NDArray[np.int64]:
    """For each hash of `second`, the index of a hash of `first` that differs in at most `bits` bits; -1 without one.

    Args:
        first: uint64 [N].
        second: uint64 [M].
        bits: taken as 0 if N x M is too large to compare in about a minute.
    """
    found = np.full(len(second), -1, np.int64)
    if not len(first) or not len(second):
        return found
    if len(first) * len(second) > _MAX_PAIRS or bits == 0:
        order = np.argsort(first, kind="stable")
        at = np.minimum(np.searchsorted(first, second, sorter=order), len(first) - 1)
        equal = first[order[at]] == second
        found[equal] = order[at[equal]]
        return found
    rows = max(1, _PAIRS_AT_ONCE // len(first))
    for start in range(0, len(second), rows):
        differing = first[None] ^ second[start : start + rows, None]
        distance = _BITS_OF_16[differing.view(np.uint16).reshape(*differing.shape, 4)].sum(axis=2, dtype=np.uint8)
        best = distance.argmin(axis=1)
        close = distance[np.arange(len(best)), best] <= bits
        found[start : start + rows][close] = best[close]
    return found
