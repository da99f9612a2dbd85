"""Things in front of a face, drawn on a picture: masks, scarves, hands, microphones, boxes with text, stickers.

There are no labelled covered faces to learn from. Each function takes a picture uint8 [H, W, 3] (RGB), the face's
`Place` and a generator of random numbers, and returns the covered picture and the cover's opacity, float32 [H, W].
All lengths are in eye distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image

Rng = np.random.Generator
Covered = tuple[Image, Floats]
Values = npt.NDArray[np.floating] | Image
# From a point to another of the same disc: `_capsule` needs two.
_DOT = np.array([0.01, 0.0])


@dataclass(frozen=True)
class Place:
    """A face's own axes.

    Attributes:
        eyes: middle between the eyes, float32 [2], px.
        x: unit vector along the eyes, float32 [2].
        y: unit vector towards the mouth, float32 [2].
        unit_px: eye distance of the face seen from the front.
    """

    eyes: Floats
    x: Floats
    y: Floats
    unit_px: float

    @classmethod
    def of(cls, landmarks: Floats) -> Place:
        """From landmarks float32 [5, 2], px: eyes, nose, corners of the mouth."""
        eyes, mouth, line = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0), landmarks[1] - landmarks[0]
        # 1.06: eyes to mouth in eye distances of a frontal face. The larger of both, since turning shortens one.
        unit = max(float(np.linalg.norm(line)), float(np.linalg.norm(mouth - eyes)) / 1.06, 1.0)
        x = line / max(float(np.linalg.norm(line)), 1e-6)
        y = np.array([-x[1], x[0]], np.float32)
        return cls(eyes, x, -y if y @ (mouth - eyes) < 0 else y, unit)

    def at(self, points: Sequence[tuple[float, float]] | Values) -> Floats:
        """Points in eye distances from between the eyes, as px: float32 [N, 2]."""
        given = np.asarray(points, np.float32)
        return np.asarray(self.eyes + self.unit_px * (given[:, :1] * self.x + given[:, 1:] * self.y), np.float32)


def surgical_mask(image: Image, place: Place, rng: Rng) -> Covered:
    """A pleated mask in white, black or a pale colour."""
    top = rng.uniform(0.3, 0.6)
    outline = [(-0.85, top + 0.1), (-0.3, top - 0.02), (0, top - 0.08), (0.3, top - 0.02), (0.85, top + 0.1)]
    outline += [(0.75, 1.5), (0, 1.95), (-0.75, 1.5)]
    mask = _shape(image, place.at(outline + rng.normal(0, 0.025, (8, 2))), rng.uniform(0.4, 1.2))
    colours = ((150, 190, 215), (215, 220, 222), (45, 45, 50), (160, 205, 200), (225, 200, 205))
    colour = np.array(colours[rng.integers(5)], np.float32) * rng.uniform(0.85, 1.1)
    down = _along(image, place, place.y)
    pleats = 1 + 0.08 * np.sin(down * rng.uniform(14, 24) + rng.uniform(0, 6)) * (np.abs(down - 1.05) < 0.4)
    cloth = colour * pleats[..., None] * _light(image, rng, 0.15) * _rounded(mask, 6) * _brightness(image)
    return _paste(image, cloth + _grain(image, rng, rng.uniform(1, 4), rng.uniform(0, 1.2)), mask)


def cloth_mask(image: Image, place: Place, rng: Rng) -> Covered:
    """A folded mask, plain, striped, checked or dotted."""
    top = rng.uniform(0.25, 0.55)
    half = [(0.5, top + 0.12), (1.0, top + 0.05), (0.95, 1.0), (0.55, 1.7)]
    outline = [(0, top - 0.12), *half, (0, 1.85), *((-x, y) for x, y in reversed(half))]
    mask = _shape(image, place.at(outline + rng.normal(0, 0.03, (10, 2))), rng.uniform(0.4, 1))
    waves, turn = rng.uniform(10, 60), rng.uniform(0, math.pi)
    across, down = _along(image, place, place.x), _along(image, place, place.y)
    first = np.sin(waves * (across * math.cos(turn) + down * math.sin(turn)))
    second = np.sin(waves * (down * math.cos(turn) - across * math.sin(turn)))
    pattern = (first > 0, (first > 0) ^ (second > 0), (first > 0.7) & (second > 0.7), first > 2)[rng.integers(4)]
    cloth = np.where(pattern[..., None], rng.integers(15, 235, 3), rng.integers(15, 235, 3))
    ridge = 1 - 0.25 * np.abs(across)[..., None]
    return _paste(
        image, cloth * ridge * _light(image, rng, 0.12) * _brightness(image) + _grain(image, rng, 4, 0.6), mask
    )


def scarf(image: Image, place: Place, rng: Rng) -> Covered:
    """Knitted cloth from the nose or the mouth down."""
    top = rng.uniform(0.4, 0.8)
    edge = [(x, top + rng.normal(0, 0.07)) for x in (-1.6, -1, -0.5, 0, 0.5, 1, 1.6)]
    mask = _shape(image, place.at([*edge, (1.6, 2.6), (-1.6, 2.6)]), rng.uniform(0.6, 1.5))
    across, down, stitches = _along(image, place, place.x), _along(image, place, place.y), rng.uniform(25, 80)
    knit = np.sin(stitches * across + 2 * np.abs(np.sin(stitches * down / 2))) * np.cos(stitches * down)
    folds = np.sin(6 * down + 2 * across + rng.uniform(0, 6))
    wool = rng.integers(20, 220, 3) * (1 + 0.18 * knit + 0.2 * folds)[..., None] * _brightness(image)
    return _paste(image, wool + _grain(image, rng, 6, 1), mask)


def fingers(image: Image, place: Place, rng: Rng) -> Covered:
    """Three or four fingers over the lower half, from one side."""
    side, turn, radius = rng.choice([-1, 1]), rng.uniform(-0.5, 0.9), rng.uniform(0.14, 0.2)
    along = np.array([-side * math.cos(turn), -math.sin(turn)])
    across = np.array([-along[1], along[0]])
    start = np.array([side * rng.uniform(0.7, 1.0), rng.uniform(1.0, 1.6)])
    colour, covered, opacity = _skin(image, place, rng), image, np.zeros(image.shape[:2], np.float32)
    for row in np.arange(rng.integers(3, 5)) - 1.5:
        ends = place.at(start + across * radius * 1.9 * row + along * np.array([[-0.8], [rng.uniform(0.7, 1.3)]]))
        distance = _capsule(image, ends, radius * place.unit_px)
        finger = colour * (1 - 0.45 * distance.clip(0, 1) ** 3)[..., None] * _light(image, rng, 0.06)
        inside = _inside(distance, radius * place.unit_px)
        covered, _ = _paste(covered, finger + _grain(image, rng, 3, 0.8), inside)
        opacity = np.maximum(opacity, inside)
    return covered, opacity


def palm(image: Image, place: Place, rng: Rng) -> Covered:
    """A hand with spread fingers on an arm from below."""
    side, radius = rng.choice([-1, 1]), rng.uniform(0.42, 0.58)
    middle = np.array([side * rng.uniform(0, 0.45), rng.uniform(0.95, 1.35)])
    parts = [
        (middle, middle + _DOT, radius),
        (middle, middle + np.array([side * rng.uniform(0, 1.2), 1.6]), 0.75 * radius),
    ]
    for spread in np.array([-0.75, -0.25, 0.25, 0.75]) + rng.uniform(-0.8, 0.8) + rng.normal(0, 0.06, 4):
        towards = np.array([math.sin(spread), -math.cos(spread)]) * radius
        parts.append((middle + towards * 0.5, middle + towards * rng.uniform(1.7, 2.1), radius * 0.27))
    nearest, opacity = np.full(image.shape[:2], np.inf, np.float32), np.zeros(image.shape[:2], np.float32)
    for start, end, thick in parts:
        distance = _capsule(image, place.at(np.stack([start, end])), thick * place.unit_px)
        nearest = np.minimum(nearest, distance)
        opacity = np.maximum(opacity, _inside(distance, thick * place.unit_px))
    hand = _skin(image, place, rng) * (1 - 0.5 * nearest.clip(0, 1) ** 2)[..., None] * _light(image, rng, 0.12)
    return _paste(image, hand + _grain(image, rng, 3, 0.8), opacity)


def microphone(image: Image, place: Place, rng: Rng) -> Covered:
    """A ball of foam on a stick, before mouth and chin."""
    middle, radius = np.array([rng.uniform(-0.3, 0.3), rng.uniform(0.8, 1.25)]), rng.uniform(0.4, 0.65)
    stick = _capsule(
        image, place.at(np.stack([middle, middle + np.array([rng.uniform(-1, 1), 2])])), 0.4 * radius * place.unit_px
    )
    ball = _capsule(image, place.at(np.stack([middle, middle + _DOT])), radius * place.unit_px)
    colours = ((28, 28, 30), (60, 60, 64), (150, 30, 35), (30, 50, 120))
    foam = np.array(colours[rng.integers(4)]) * (1.4 - ball.clip(0, 1) ** 2)[..., None] + _grain(image, rng, 10, 0.8)
    opacities = [_inside(d, r * place.unit_px) for d, r in ((stick, 0.4 * radius), (ball, radius))]
    covered, _ = _paste(image, 36 * (1.3 - 0.8 * stick.clip(0, 1))[..., None] * np.ones(3), opacities[0])
    return _paste(covered, foam, opacities[1])[0], np.maximum(*opacities)


def solid(image: Image, place: Place, rng: Rng) -> Covered:
    """A plain object in any colour: a cup, a phone, a ball."""
    (x, y), half = (
        place.at([(rng.uniform(-0.5, 0.5), rng.uniform(0.3, 1.3))])[0],
        rng.uniform(0.4, 0.9, 2) * place.unit_px,
    )
    box = ((float(x), float(y)), (2 * float(half[0]), 2 * float(half[1])), rng.uniform(0, 180))
    mask = np.zeros(image.shape[:2], np.uint8)
    if rng.random() < 0.5:
        cv2.ellipse(mask, box, 255, -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(mask, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 255, cv2.LINE_AA)
    opacity = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), rng.uniform(0.3, 1.2))
    surface = rng.integers(5, 250, 3) * _light(image, rng, 0.3) * _rounded(opacity, 10)
    return _paste(image, surface + _grain(image, rng, rng.uniform(0, 5), rng.uniform(0, 2)), opacity)


def texture(image: Image, place: Place, rng: Rng) -> Covered:
    """Anything: a part of the picture itself, enlarged, turned and recoloured, in a round shape."""
    size = min(image.shape[:2])
    part = int(rng.uniform(0.2, 0.5) * size)
    x, y = rng.integers(0, size - part, 2)
    surface = cv2.resize(image[y : y + part, x : x + part], image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    surface = np.rot90(surface, int(rng.integers(4))) if image.shape[0] == image.shape[1] else surface
    recoloured = surface * rng.uniform(0.4, 1.5, 3) + rng.normal(0, 25, 3)
    turns = np.linspace(0, 2 * math.pi, rng.integers(6, 11), endpoint=False)
    radii = rng.uniform((0.45, 0.4), (1.1, 0.9)) * rng.uniform(0.75, 1.25, (len(turns), 1))
    outline = radii * np.stack([np.cos(turns), np.sin(turns)], axis=1) + rng.uniform((-0.5, -0.1), (0.5, 1.4))
    opacity = _shape(image, place.at(outline), rng.uniform(0.3, 2))
    return _paste(image, recoloured * _rounded(opacity, 5), opacity)


def box(image: Image, place: Place, rng: Rng) -> Covered:
    """An opaque box, often with text, over 15 to 60 % of the picture."""
    height, width = image.shape[:2]
    tall = min(1.0, math.sqrt(rng.uniform(0.15, 0.6) / math.exp(rng.uniform(-0.5, 1))))
    wide = min(1.0, rng.uniform(0.15, 0.6) / tall)
    x, y = place.at([(rng.normal(0, 0.35), 0.5 + rng.normal(0, 0.35))])[0]
    left, top = (x - wide * width / 2).clip(0, width * (1 - wide)), (y - tall * height / 2).clip(0, height * (1 - tall))
    opacity = np.zeros((height, width), np.float32)
    opacity[round(top) : round(top + tall * height), round(left) : round(left + wide * width)] = 1
    colour = ((0, 0, 0), (250, 250, 250), tuple(rng.integers(0, 256, 3).tolist()))[rng.integers(3)]
    surface = np.full(image.shape, colour, np.uint8)
    for line in range(rng.integers(0, 5)):
        letters = "".join(rng.choice(list("ABCDEFGHKLMNOPRSTUW 0123456789"), rng.integers(3, 12)))
        place_px = (round(left) + 3, round(top + tall * height * (line + 0.7) / 4) + 6)
        ink = tuple(rng.integers(0, 256, 3).tolist()) if rng.random() < 0.4 else (255 - colour[0],) * 3
        size = rng.uniform(0.4, 1.3) * width / 224
        cv2.putText(surface, letters, place_px, int(rng.choice([0, 2, 3])), size, ink, 2, cv2.LINE_AA)
    return _paste(image, surface, opacity)


def eye_bar(image: Image, place: Place, rng: Rng) -> Covered:
    """A bar over the eyes, as in the news."""
    half = rng.uniform(0.25, 0.4)
    opacity = _filled(image, place.at([(-1.3, -half), (1.3, -half), (1.3, half), (-1.3, half)]))
    return _paste(image, np.full(image.shape, rng.choice([0, 0, 0, 20, 255]), np.float32), opacity)


def sticker(image: Image, place: Place, rng: Rng) -> Covered:
    """A star, a polygon or a disc with a face in it, in flat colours."""
    if rng.random() < 0.5:
        middle, radius = (rng.normal(0, 0.1), rng.uniform(0.3, 0.6)), rng.uniform(0.7, 1.15)
        inner, corners = 1.0, 24
    else:
        middle, radius = (rng.uniform(-0.4, 0.4), rng.uniform(0.3, 1.0)), rng.uniform(0.6, 1.0)
        inner, corners = rng.choice([0.6, 1.0]), int(rng.integers(2, 7))
    turns = np.arange(2 * corners) * math.pi / corners + rng.uniform(0, 6)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    reach = np.where(np.arange(2 * corners) % 2, 1.0, inner)[:, None] * radius
    opacity = _filled(image, place.at(middle + circle * reach))
    covered, _ = _paste(image, rng.integers(0, 256, 3) * np.ones(image.shape), opacity)
    ink = rng.integers(0, 256, 3) * np.ones(image.shape)
    small = np.array([(-0.35, -0.2), (0.35, -0.2), (0.0, 0.35)]) * radius
    for offset, size in zip(small, (0.13, 0.13, rng.uniform(0.15, 0.35)), strict=True):
        covered, _ = _paste(covered, ink, _filled(image, place.at(middle + offset + circle * size * radius)) * opacity)
    return covered, opacity


COVERS: Mapping[str, Callable[[Image, Place, Rng], Covered]] = {
    cover.__name__: cover
    for cover in (
        *(surgical_mask, cloth_mask, scarf, fingers, palm, microphone),
        *(solid, texture, box, eye_bar, sticker),
    )
}


def sunglasses(image: Image, place: Place, rng: Rng) -> Covered:
    """Dark glasses: not among `COVERS`, since a face with them shows most of itself."""
    lens = np.array([(-0.36, -0.18), (0, -0.22), (0.36, -0.18), (0.36, 0.1), (0.12, 0.28), (-0.12, 0.28), (-0.36, 0.1)])
    opacity = np.maximum(*(_shape(image, place.at(lens + np.array([x, 0.02])), 0.6) for x in (-0.5, 0.5)))
    bridge = _filled(image, place.at([(-0.5, -0.12), (0.5, -0.12), (0.5, -0.06), (-0.5, -0.06)]))
    opacity = np.maximum(opacity, bridge)
    shine = rng.uniform(8, 40) * np.linspace(1.8, 0.8, image.shape[0])[:, None, None]
    return _paste(image, shine + _grain(image, rng, 1.5, 1), opacity)


def _paste(image: Image, surface: Values, opacity: Floats) -> Covered:
    # A blurred mask may exceed 1 by rounding.
    opacity = opacity.clip(0, 1)
    share = opacity[..., None]
    return np.asarray((image * (1 - share) + surface * share).clip(0, 255), np.uint8), opacity


def _filled(image: Image, outline: Values) -> Floats:
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return np.asarray(mask.astype(np.float32) / 255)


def _shape(image: Image, corners: Floats, soft_px: float) -> Floats:
    """The closed Catmull-Rom curve through corners [N, 2], filled, with a soft edge."""
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    before, start, end, after = (np.roll(corners, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    curve = 2 * start + (end - before) * t + (2 * before - 5 * start + 4 * end - after) * t**2
    curve = (curve + (3 * start - before - 3 * end + after) * t**3) / 2
    return np.asarray(cv2.GaussianBlur(_filled(image, curve.reshape(-1, 2)), (0, 0), max(soft_px, 0.3)))


def _along(image: Image, place: Place, axis: Floats) -> Floats:
    """Each pixel's coordinate along an axis of the face, float32 [H, W], from between the eyes."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return np.asarray(((columns - place.eyes[0]) * axis[0] + (rows - place.eyes[1]) * axis[1]) / place.unit_px)


def _capsule(image: Image, ends: Floats, radius_px: float) -> Floats:
    """Each pixel's distance from the line between two points [2, 2], in radii: float32 [H, W]."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    x, y = (ends[1] - ends[0]).tolist()
    columns, rows = columns - ends[0, 0], rows - ends[0, 1]
    share = ((columns * x + rows * y) / (x * x + y * y + 1e-6)).clip(0, 1)
    return np.asarray(np.hypot(columns - share * x, rows - share * y) / np.float32(radius_px))


def _inside(distance: Floats, radius_px: float) -> Floats:
    return np.asarray(((1 - distance) * radius_px / 1.5 + 0.5).clip(0, 1))


def _skin(image: Image, place: Place, rng: Rng) -> Floats:
    """A colour like that around the nose."""
    x, y = np.rint(place.at([(0, 0.5)])[0]).astype(int).clip(0, image.shape[0] - 1).tolist()
    near = max(2, round(0.25 * place.unit_px))
    patch = image[max(0, y - near) : y + near, max(0, x - near) : x + near].reshape(-1, 3)
    return np.asarray((np.median(patch, axis=0) * rng.uniform(0.75, 1.2) + rng.normal(0, 6, 3)).clip(10, 250))


def _brightness(image: Image) -> float:
    """Of the light on the face: 1 where its bright parts are 160."""
    return float(np.percentile(image[::4, ::4].mean(axis=2), 70)) / 160


def _light(image: Image, rng: Rng, strength: float) -> Floats:
    """Uneven light from one side, float32 [H, W, 1] around 1."""
    cells = cv2.resize(rng.normal(0, 0.5, (3, 3)).astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    rows, columns = np.linspace(-1, 1, image.shape[0])[:, None], np.linspace(-1, 1, image.shape[1])
    turn = rng.uniform(0, 2 * math.pi)
    return np.asarray(1 + strength * (cells + columns * math.cos(turn) + rows * math.sin(turn)))[..., None]


def _rounded(opacity: Floats, width_px: float) -> Floats:
    """Darker towards the edge, float32 [H, W, 1]."""
    return np.asarray(1 - 0.7 * (1 - cv2.GaussianBlur(opacity, (0, 0), width_px)).clip(0, 1))[..., None]


def _grain(image: Image, rng: Rng, sigma: float, blur_px: float) -> Floats:
    noise = rng.standard_normal(image.shape[:2], np.float32)
    if blur_px > 0.3:
        noise = cv2.GaussianBlur(noise, (0, 0), blur_px)
        noise /= noise.std() + 1e-6
    return np.asarray(sigma * noise)[..., None]
