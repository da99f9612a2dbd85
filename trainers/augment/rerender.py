"""Re-rendered faces: passed through a small autoencoder and pasted back, with and without blending.

NeuralTextures (mouth), FaceShifter and DeepFaceLab (face) and audio-driven heads (whole picture) leave traces of
their decoder, not a seam: upsampling, lost detail, slightly wrong colours.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.types import Floats, Image
from trainers.augment import degrade
from trainers.augment import mean_mesh as mesh
from trainers.augment.autoencoders import load_autoencoders
from trainers.augment.blend_config import BlendConfig, RerenderConfig, choose
from trainers.augment.blending import Blend, mixed
from trainers.augment.colours import match_colours
from trainers.augment.face import Face, mesh_of
from trainers.augment.masks import hull, soft_mask

_REGIONS = ("face", "mouth", "picture")
_MOUTH_AREA = (*mesh.OUTER_LIPS, *mesh.CHIN, 205, 425, 187, 411, 2, *mesh.JAW[5:16])
# The rendered square is larger than the pasted one: nets are poor at the edges of their picture.
_MARGIN = 1.2
# A part of the square's side at each edge that is never pasted.
_UNUSED = 0.06


def rerender(face: Face, donor: Face, rng: np.random.Generator, config: BlendConfig) -> Blend:
    """This face as an autoencoder renders it. The donor is ignored.

    Raises:
        trainers.augment.autoencoders.AutoencodersMissingError: the configured folder has none.
    """
    how = config.rerender
    nets = load_autoencoders(how.folder)
    net = nets[int(rng.integers(len(nets)))]
    size = (face.image.shape[0], face.image.shape[1])
    region = choose(_REGIONS, how.region_shares, rng)
    points = mesh_of(face)
    if region == "mouth":
        points = points[mesh.places(*_MOUTH_AREA)]
    hard = np.ones(size, np.float32) if region == "picture" else hull(points, size)
    if not hard.any():
        hard = np.ones(size, np.float32)
    x, y, side = _square_around(hard, rng)
    rendered = _pasted(face.image, net.render(_cut(face.image, x, y, side)), x, y, side, rng)
    if rng.random() < how.colour_share:
        rendered = match_colours(rendered, face.image, hard, "mean")
    rendered = _with_detail(rendered, face.image, hard, rng.uniform(*how.detail), how)
    if region != "picture" and rng.random() < how.square_share:
        hard = np.zeros(size, np.float32)
        edge = round(side * _UNUSED)
        hard[max(0, y + edge) : y + side - edge, max(0, x + edge) : x + side - edge] = 1
        mask = hard
    elif hard.all():
        mask = hard
    else:
        mask = soft_mask(hard, rng, how.soften)
    real = face.image
    evening = rng.random()
    if evening < how.blur_real_share:
        real = _as_sharp(real, rendered, hard)
    elif evening < how.blur_real_share + how.sharpen_share:
        rendered = degrade.sharpen(rendered, min(2.5, max(0.0, _detail(real, hard) / _detail(rendered, hard) - 1)))
    return Blend(real, mixed(rendered, real, mask), mask)


def _square_around(hard: Floats, rng: np.random.Generator) -> tuple[int, int, int]:
    """Left, top and side of the square to render, which may reach beyond the picture."""
    rows, columns = np.flatnonzero(hard.any(axis=1)), np.flatnonzero(hard.any(axis=0))
    side = round(max(rows[-1] - rows[0], columns[-1] - columns[0], 15) * _MARGIN * rng.uniform(0.95, 1.15)) + 1
    x = (columns[0] + columns[-1] + 1) / 2 - side / 2
    y = (rows[0] + rows[-1] + 1) / 2 - side / 2
    return round(float(x)), round(float(y)), side


def _cut(image: Image, x: int, y: int, side: int) -> Image:
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    return np.asarray(cv2.warpAffine(image, move, (side, side), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT))


def _pasted(image: Image, rendered: Image, x: int, y: int, side: int, rng: np.random.Generator) -> Image:
    """The rendered square at its place in the picture."""
    ups = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
    how = cv2.INTER_AREA if side < rendered.shape[0] else ups[int(rng.integers(len(ups)))]
    large = cv2.resize(rendered, (side, side), interpolation=how)
    result = image.copy()
    left, top = max(0, x), max(0, y)
    right, bottom = min(image.shape[1], x + side), min(image.shape[0], y + side)
    result[top:bottom, left:right] = large[top - y : bottom - y, left - x : right - x]
    return result


def _with_detail(rendered: Image, real: Image, where: Floats, wanted: float, how: RerenderConfig) -> Image:
    """The rendered face mixed with the real one until it has a part `wanted` of its detail, within the limits."""
    has = _detail(rendered, where) / _detail(real, where)
    level = float(np.abs(rendered.astype(np.float32) - real)[where > 0.5].mean())
    visible = 1 - how.smallest / max(level, 1e-3)
    share = max(0.0, min(how.mixed_back, visible, (wanted - has) / max(1 - has, 1e-3)))
    return mixed(real, rendered, np.full(where.shape, share, np.float32))


def _detail(image: Image, where: Floats) -> float:
    """Mean absolute Laplacian inside a mask, without the finest px, which hold a decoder's grid."""
    smooth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.2)
    laplacian = cv2.Laplacian(smooth, cv2.CV_32F)
    return max(float(np.abs(laplacian[where > 0.5]).mean()), 1e-3)


def _as_sharp(image: Image, like: Image, where: Floats) -> Image:
    """The whole picture blurred evenly until its face is as sharp as another one."""
    wanted = _detail(like, where)
    for sigma in (0.5, 0.7, 0.9, 1.2, 1.6, 2.1):
        if _detail(image, where) <= wanted:
            break
        blurred = degrade.blur(image, sigma)
        if _detail(blurred, where) <= wanted or sigma == 2.1:
            return blurred
    return image
