"""Reenactment by graphics: the face's own picture, changed to another expression or pose.

As in Face2Face, one of FaceForensics++'s methods (Thies et al., CVPR 2016): identity, light and background stay,
mouth, lids and brows follow someone else. The other's expression is the remainder of its mesh after the best affine
map onto this face removes its pose and proportions.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment import mean_mesh as mesh
from trainers.augment.blend_config import BlendConfig
from trainers.augment.blending import Blend, mixed
from trainers.augment.colours import match_colours
from trainers.augment.face import Face, mesh_of
from trainers.augment.masks import hull, soft_mask
from trainers.augment.mesh_swap import aligned
from trainers.augment.warp import deform, warp

# Points that expressions hardly move: corners of the eyes, ridge and base of the nose, temples.
_STABLE = (33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 98, 327, 127, 356, 234, 454)
_LOWER_LIPS = (91, 181, 84, 17, 314, 405, 321, 95, 88, 178, 87, 14, 317, 402, 318, 324, 146, 375)
_MOUTH_AREA = (*mesh.OUTER_LIPS, *mesh.CHIN, 205, 425, 187, 411, *mesh.JAW[4:17])
# Difference of stable points of two frontal heads after the affine map, in eye distances.
_FIT = 0.04
# Below the first mean lip movement, in eye distances, a fake looks like its real: the jaw opens by the second or more.
_STILL, _VISIBLE = 0.025, 0.08
# Height in eye distances from which an open mouth shows its inside; below it is a line.
_OPEN = 0.06
# Depth of a mouth: the dark colour that a net or renderer fills it with.
_DARK = np.array([52.0, 24.0, 24.0], np.float32)


def reenactment(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    """This face with another expression.

    Args:
        face: gives the picture.
        donor: gives the expression.
        rng: source of randomness.
        config: settings.
    """
    how = config.reenactment
    size = (face.image.shape[0], face.image.shape[1])
    unit = np.float32(face.unit_px)
    source = mesh_of(face)
    mouth_only = rng.random() < how.mouth_share
    offset = expression(face, donor) * np.float32(rng.uniform(*how.gain))
    lips = offset[mesh.places(*mesh.OUTER_LIPS)]
    still = float(np.abs(lips).mean()) < _STILL * unit
    opening = rng.uniform(*how.jaw)
    if rng.random() < how.jaw_share or still:
        # Two faces with the same expression: the jaw moves, downwards if there is no gap to close.
        offset = offset + _jaw(face, max(opening, _VISIBLE) if still else opening)
    weights = _weights(mouth_only)
    offset = _limited(offset * (weights[:, None] > 0), weights * np.float32(how.largest) * unit)
    if not mouth_only and rng.random() < how.pose_share:
        offset = offset + _pose(face, *rng.uniform(-how.pose, how.pose, 2))
    target = _untangled(source + offset)
    moved = deform(face.image, source, target)
    moved = _mouth_filled(moved, target, source, donor, rng)
    if rng.random() < how.render_share:
        moved = degrade.resize(moved, rng.uniform(*how.render))
    area = mesh.places(*_MOUTH_AREA) if mouth_only else slice(None)
    hard = np.maximum(hull(target[area], size), hull(source[area], size))
    if not hard.any():
        hard = np.ones(size, np.float32)
    mask = soft_mask(hard, rng, how.soften)
    return Blend(face.image, mixed(moved, face.image, mask), mask)


def expression(face: Face, donor: Face) -> Floats:
    """Movement of each point for the donor's expression, float32 [163, 2], px of the face's picture.

    With a dense mesh of both; else only the corners of the mouth are known, and nearby points follow.
    """
    ours = mesh_of(face)
    if face.dense is not None and donor.dense is not None:
        theirs = mesh_of(donor)
        stable = mesh.places(*_STABLE)
        known = np.column_stack([theirs[stable], np.ones(len(stable))])
        onto = np.linalg.lstsq(known, ours[stable].astype(np.float64), rcond=None)[0]
        offset = np.column_stack([theirs, np.ones(len(theirs))]) @ onto - ours
        # If the two heads differ by more than an affine map, the remainder is not only expression.
        rest = float(np.sqrt((offset[stable] ** 2).sum(axis=1).mean())) / face.unit_px
        return np.asarray(offset * min(1.0, _FIT / max(rest, 1e-6)), np.float32)
    five = aligned(donor.landmarks, face.landmarks) - face.landmarks
    # The affine map of five points leaves a small remainder; it is doubled, or nothing would move.
    corners = 2 * five[3:]
    distance = np.linalg.norm(ours[:, None] - face.landmarks[None, 3:], axis=2) / face.unit_px
    near = np.exp(-((distance / 0.4) ** 2))
    return np.asarray((near[..., None] * corners[None]).sum(axis=1), np.float32)


def _limited(offset: Floats, largest_px: Floats) -> Floats:
    """Offsets [P, 2] compressed so that none is longer than its limit [P]: short ones stay, long ones approach it."""
    lengths = np.maximum(np.linalg.norm(offset, axis=1), 1e-6)
    return np.asarray(offset * (largest_px * np.tanh(lengths / np.maximum(largest_px, 1e-6)) / lengths)[:, None])


def _axes(face: Face) -> tuple[Floats, Floats]:
    """Right and down of the face, unit vectors of its picture."""
    down = face.landmarks[3:].mean(axis=0) - face.landmarks[:2].mean(axis=0)
    down = down / max(float(np.linalg.norm(down)), 1e-6)
    return np.array([down[1], -down[0]], np.float32), np.asarray(down, np.float32)


def _jaw(face: Face, opening: float) -> Floats:
    """The jaw lowered by an opening in eye distances; closing is limited by the gap between the lips."""
    ours = mesh_of(face)
    _, down = _axes(face)
    gap = float((ours[mesh.places(14)] - ours[mesh.places(13)])[0] @ down)
    distance_px = max(opening * face.unit_px, -0.9 * max(gap, 0.0))
    return np.asarray(_jaw_weights()[:, None] * down * np.float32(distance_px), np.float32)


@functools.cache
def _jaw_weights() -> Floats:
    """float32 [163]: lower lip and chin move with the jaw, the cheeks' outline in proportion to its depth."""
    average = mesh.mean_mesh()
    weight = np.zeros(len(average), np.float32)
    jaw = mesh.places(*mesh.JAW)
    weight[jaw] = ((average[jaw, 1] - 0.9) / 0.8).clip(0, 1)
    weight[mesh.places(*mesh.CHIN)] = 1
    lower = mesh.places(*_LOWER_LIPS)
    # The corners of the mouth stay; the lip between them drops.
    weight[lower] = (1.15 - np.abs(average[lower, 0]) / 0.42).clip(0, 1)
    return weight


@functools.cache
def _weights(mouth_only: bool) -> Floats:
    """float32 [163]: how far an expression may move each point; the head's outline above the mouth stays."""
    weight = np.zeros(len(mesh.mean_mesh()), np.float32)
    weight[mesh.places(*mesh.OUTER_LIPS, *mesh.INNER_LIPS)] = 1
    weight[mesh.places(*mesh.CHIN)] = 0.9
    weight[mesh.places(*mesh.CHEEKS)] = 0.5
    jaw = mesh.places(*mesh.JAW)
    weight[jaw] = ((mesh.mean_mesh()[jaw, 1] - 0.9) / 0.8).clip(0, 1) * 0.9
    if not mouth_only:
        weight[mesh.places(*mesh.LEFT_BROW, *mesh.RIGHT_BROW)] = 0.4
        weight[mesh.places(*mesh.LEFT_EYE, *mesh.RIGHT_EYE)] = 0.3
        weight[mesh.places(*mesh.FOREHEAD)] = 0.15
        weight[mesh.places(*mesh.NOSE)] = 0.15
    return weight


def _pose(face: Face, turn: float, nod: float) -> Floats:
    """A small turn and nod: each point moves by its depth relative to the outline, which stays."""
    depth = mesh.mean_mesh()[:, 2].copy()
    level = float(depth[mesh.places(*mesh.OVAL)].mean())
    depth = level - depth
    depth[mesh.places(*mesh.OVAL)] = 0
    right, down = _axes(face)
    move = np.outer(depth, right) * turn + np.outer(depth, down) * nod
    return np.asarray(move * face.unit_px, np.float32)


def _untangled(target: Floats) -> Floats:
    """Crossed lips and lids are set to the same place."""
    result = target.copy()
    down = target[mesh.places(152)][0] - target[mesh.places(168)][0]
    down = down / max(float(np.linalg.norm(down)), 1e-6)
    for upper, lower in (*_LIP_PAIRS, *_LID_PAIRS):
        a, b = int(mesh.places(upper)[0]), int(mesh.places(lower)[0])
        crossed = float((result[a] - result[b]) @ down)
        if crossed > 0:
            middle = down * np.float32(crossed / 2)
            result[a] -= middle
            result[b] += middle
    return result


_LIP_PAIRS = ((82, 87), (13, 14), (312, 317), (81, 178), (311, 402), (80, 88), (310, 318), (191, 95), (415, 324))
_LID_PAIRS = (
    *((161, 163), (160, 144), (159, 145), (158, 153), (157, 154)),
    *((388, 390), (387, 373), (386, 374), (385, 380), (384, 381)),
)


def _mouth_filled(picture: Image, target: Floats, source: Floats, donor: Face, rng: np.random.Generator) -> Image:
    """Fill the inside of a newly opened mouth: with the donor's, or dark."""
    lips = mesh.places(*mesh.INNER_LIPS)
    if _opening(source) > _OPEN or _opening(target) < _OPEN:
        return picture
    size = (picture.shape[0], picture.shape[1])
    inside = hull(target[lips], size)
    if inside.sum() < 8:
        return picture
    theirs = mesh_of(donor)
    if donor.dense is not None and _opening(theirs) > _OPEN:
        filling, valid = warp(donor.image, theirs[lips], target[lips], _lip_triangles(), size)
        filling = match_colours(filling, picture, cv2.dilate(inside, np.ones((5, 5))), "mean")
        inside = inside * valid
    else:
        shade = _DARK * np.float32(rng.uniform(0.5, 1.4)) * np.float32(picture.mean() / 110)
        filling = np.broadcast_to(shade.clip(0, 255).astype(np.uint8), picture.shape)
    soft = cv2.GaussianBlur(inside, (0, 0), max(0.6, 0.004 * size[1]))
    return mixed(np.asarray(filling), picture, soft)


def _opening(points: Floats) -> float:
    """How far apart the lips are, in parts of the distance from the brows' middle to the chin's tip, times 2.5."""
    top, chin = points[mesh.places(168)][0], points[mesh.places(152)][0]
    height = max(float(np.linalg.norm(chin - top)), 1e-6)
    gap = (points[mesh.places(14)] - points[mesh.places(13)])[0]
    return float(gap @ (chin - top)) / height**2 * 1.7


@functools.cache
def _lip_triangles() -> mesh.Indices:
    """A fan over the inner lips: corner to corner, upper to lower, as the points go around."""
    count = len(mesh.INNER_LIPS)
    # 0 and 10 are the corners; i and count - i face each other.
    strips = []
    for i in range(count // 2):
        a, b, c, d = i, i + 1, (count - i) % count, count - i - 1
        strips += [(a, b, d), (a, d, c)] if i else [(a, b, d)]
    found = np.array([s for s in strips if len(set(s)) == 3], np.int64)
    # Oriented as in an open mouth, where all have the same orientation.
    spread = mesh.mean_mesh()[mesh.places(*mesh.INNER_LIPS)][:, :2].copy()
    half = np.arange(count)
    spread[:, 1] += np.where((half > 0) & (half < count // 2), 0.2, np.where(half > count // 2, -0.2, 0)).astype(
        np.float32
    )
    flipped = mesh.signed_areas(spread, found) < 0
    found[flipped] = found[flipped][:, ::-1]
    return found
