"""Blanks parts of a face, so that the network does not rely on one cue."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image
from trainers.augment.outline import REGIONS, region_mask

Mask = npt.NDArray[np.bool_]
Part = Literal["eyes", "nose", "mouth"]
PARTS: tuple[Part, ...] = get_args(Part)

# Half-width and half-height of the ellipse around each part's landmarks, in eye distances.
_EYE, _NOSE, _MOUTH = (0.34, 0.22), (0.26, 0.36), (0.3, 0.26)
# A fake keeps at least this much of its forgery, or its label would be wrong.
_KEPT = 0.4


def cut_out(image: Image, landmarks: Floats, rng: np.random.Generator) -> tuple[Image, Mask]:
    """A region of the face, or a rectangle, blanked; and where, bool [H, W]."""
    side = image.shape[0]
    if rng.random() < 0.5:
        region = REGIONS[rng.integers(2, len(REGIONS))]  # not the whole face
        mask = region_mask(landmarks, region, (side, side), rng) > 0
    else:
        width, height = (rng.uniform(0.15, 0.45, 2) * side).astype(int)
        x, y = int(rng.integers(0, side - width)), int(rng.integers(0, side - height))
        mask = np.zeros((side, side), bool)
        mask[y : y + height, x : x + width] = True
    blanked = image.copy()
    blanked[mask] = rng.integers(0, 256, 3) if rng.random() < 0.5 else 0
    return blanked, mask


def part_mask(landmarks: Floats, part: Part, size: tuple[int, int], grow: float = 1.0) -> Mask:
    """Eyes, nose or mouth as a mask, bool [H, W].

    Args:
        landmarks: float32 [5, 2], px: eyes, nose, corners of the mouth.
        part: of the face.
        size: height and width in px.
        grow: factor of the mask's extent.
    """
    eyes, nose, mouth = landmarks[:2], landmarks[2], landmarks[3:]
    unit = max(float(np.linalg.norm(eyes[1] - eyes[0])), float(np.linalg.norm(mouth.mean(0) - eyes.mean(0))) / 1.07, 1)
    tilt = float(np.degrees(np.arctan2(*(eyes[1] - eyes[0])[::-1])))
    # The landmark of the nose is its tip: its bridge goes up towards the eyes.
    middle = nose + 0.35 * (eyes.mean(axis=0) - nose)
    ellipses = {
        "eyes": [(eyes[0], _EYE), (eyes[1], _EYE)],
        "nose": [(middle, _NOSE)],
        "mouth": [(point, _MOUTH) for point in (mouth[0], mouth.mean(axis=0), mouth[1])],
    }[part]
    mask = np.zeros(size, np.uint8)
    for centre, extent in ellipses:
        axes = tuple(float(2 * unit * grow * length) for length in extent)
        cv2.ellipse(mask, ((float(centre[0]), float(centre[1])), axes, tilt), 1, -1)
    if part == "mouth" and mask.any():
        cv2.fillConvexPoly(mask, cv2.convexHull(np.argwhere(mask)[:, ::-1].astype(np.int32)), 1)
    return mask > 0


def choose_part(landmarks: Floats, forged: Floats | None, size: tuple[int, int], rng: np.random.Generator) -> Mask:
    """Eyes, nose or mouth to blank in both members of a pair (the sensory groups of Das et al., arXiv:2102.09603).

    Args:
        landmarks: float32 [5, 2], px.
        forged: float32 [H, W] in 0..1, where the fake is forged; None if unknown.
        size: height and width in px.
        rng: draws part and size.

    Returns:
        bool [H, W]; all False if each part would hide most of the forgery.
    """
    for part in rng.permutation(np.array(PARTS)):
        mask = part_mask(landmarks, part, size, float(rng.uniform(0.8, 1.3)))
        if forged is None or float(forged[~mask].sum()) >= _KEPT * float(forged.sum()):
            return mask
    return np.zeros(size, bool)


def blanked(image: Image, mask: Mask, seed: int) -> Image:
    """The picture with one colour, or noise, instead of the masked part; equal seeds give the same result.

    Args:
        image: uint8 [H, W, 3].
        mask: bool, of the same aspect ratio, at any size.
        seed: of the colour or the noise.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    if mask.shape != (height, width):
        mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    result = image.copy()
    fill = rng.integers(3)
    if fill == 0:
        result[mask] = 0
    elif fill == 1:
        result[mask] = rng.integers(0, 256, 3)
    else:
        result[mask] = rng.integers(0, 256, image.shape, np.uint8)[mask]
    return result
