"""Face swaps by graphics: a donor's face warped onto another's mesh, with matched colours and blended.

As in FaceSwap, one of FaceForensics++'s methods (Roessler et al., ICCV 2019, arXiv:1901.08971), and in the many
programs that swap faces by landmarks, Delaunay triangles, colour transfer and Poisson blending.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment.blend_config import BlendConfig, choose
from trainers.augment.blending import Blend, mixed
from trainers.augment.colours import MATCHINGS, Matching, match_colours
from trainers.augment.face import Face, mesh_of, mirror
from trainers.augment.masks import hard_mask, hull, soft_mask
from trainers.augment.mean_mesh import OVAL, mean_mesh, places, triangles
from trainers.augment.warp import warp

_MASKS = ("full", "extended", "holes")
# Distance in px of a Poisson mask from the edges of the padded picture: seamlessClone erodes it by three.
_ROOM = 8


def mesh_swap(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    """The donor's face in place of this one.

    Args:
        face: the target.
        donor: another person, whose face is used; mirrored if it looks the other way.
        rng: source of randomness.
        config: settings.
    """
    how = config.mesh_swap
    size = (face.image.shape[0], face.image.shape[1])
    source, valid = donor_on(face, donor, rng.uniform(*how.shape))
    if rng.random() < how.render_share:
        source = degrade.resize(source, rng.uniform(*how.render))
    hard = hard_mask(face, choose(_MASKS, how.mask_shares, rng), rng) * valid
    if not hard.any():
        # The donor's face is not visible from here: it looks away.
        hard = hull(mesh_of(face), size)
    matching: Matching = choose(MATCHINGS, how.colour_shares, rng)  # type: ignore[assignment]
    source = match_colours(source, face.image, hard, matching)
    mask = soft_mask(hard, rng, how.soften) * np.maximum(cv2.GaussianBlur(valid, (0, 0), 2.0), hard)
    if rng.random() < how.poisson_share:
        source = poisson(source, face.image, mask > 0.02)
    return Blend(face.image, mixed(source, face.image, mask), mask)


def donor_on(face: Face, donor: Face, shape: float = 0.0) -> tuple[Image, Floats]:
    """The donor's face warped onto this one's mesh.

    Args:
        face: target.
        donor: source; mirrored if the two look to different sides.
        shape: 0 takes this face's shape, 1 the donor's, fitted to this face by an affine map.

    Returns:
        uint8 [H, W, 3] of this face's picture, outside the mesh this face itself; and the donor's place, float32
        [H, W] of 0 and 1.
    """
    if yaw(face) * yaw(donor) < 0:
        donor = mirror(donor)
    ours, theirs = mesh_of(face), mesh_of(donor)
    target = ours + np.float32(shape) * (aligned(theirs, ours) - ours) * _inner()[:, None]
    moved, valid = warp(donor.image, theirs, target, triangles(), (face.image.shape[0], face.image.shape[1]))
    return np.where(valid[..., None] > 0, moved, face.image), valid


def yaw(face: Face) -> float:
    """Side and amount of the head's turn: the nose's offset from the middle line, in eye distances."""
    middle = (face.landmarks[:2].mean(axis=0) + face.landmarks[3:].mean(axis=0)) / 2
    return float(face.landmarks[2, 0] - middle[0]) / face.unit_px


def aligned(points: Floats, target: Floats) -> Floats:
    """Points [P, 2] moved onto the target's by the least-squares affine map."""
    known = np.column_stack([points, np.ones(len(points))])
    return np.asarray(known @ np.linalg.lstsq(known, target.astype(np.float64), rcond=None)[0], np.float32)


def _inner() -> Floats:
    """float32 [163]: 1 inside the face, 0 on its outline, which must match the target's head."""
    weight = np.ones(len(mean_mesh()), np.float32)
    weight[places(*OVAL)] = 0
    return weight


def poisson(source: Image, target: Image, where: np.ndarray) -> Image:
    """The source's gradients inside the mask, the target's values around it (Perez et al., SIGGRAPH 2003).

    Args:
        source: uint8 [H, W, 3].
        target: uint8 [H, W, 3].
        where: bool [H, W].
    """
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    if len(rows) < _ROOM or len(columns) < _ROOM:
        return source
    # Only around the mask, with the border at the picture's edges that the solver needs.
    top, bottom = max(0, rows[0] - _ROOM), min(where.shape[0], rows[-1] + 1 + _ROOM)
    left, right = max(0, columns[0] - _ROOM), min(where.shape[1], columns[-1] + 1 + _ROOM)
    window = np.s_[top:bottom, left:right]

    def padded(picture: Image, border: int) -> Image:
        return np.asarray(cv2.copyMakeBorder(np.ascontiguousarray(picture[window]), *(_ROOM,) * 4, borderType=border))

    mask = padded(where.astype(np.uint8) * np.uint8(255), cv2.BORDER_CONSTANT)
    x, y, width, height = cv2.boundingRect(mask)
    cloned = cv2.seamlessClone(
        padded(source, cv2.BORDER_REFLECT_101),
        padded(target, cv2.BORDER_REFLECT_101),
        mask,
        (x + width // 2, y + height // 2),
        cv2.NORMAL_CLONE,
    )
    result = source.copy()
    result[window] = cloned[_ROOM:-_ROOM, _ROOM:-_ROOM]
    return result
