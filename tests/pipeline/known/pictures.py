"""Generated pictures that no version of a library changes."""

from __future__ import annotations

import functools

import numpy as np

from tests.media import Picture, face_picture


def waves(width: int, height: int, seed: int = 0) -> Picture:
    """uint8 [height, width, 3]: plane waves of several lengths and directions."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    total = np.zeros((height, width))
    for i in range(1, 13):
        angle, phase = 2.4 * i + seed, 1.7 * i * (seed + 1)
        total += np.sin(2 * np.pi * i * (x * np.cos(angle) + y * np.sin(angle)) + phase) / np.sqrt(i)
    red = 127.5 + 40 * total
    return np.stack([red, red * 0.8, 255 - red], axis=2).clip(0, 255).astype(np.uint8)


@functools.cache
def pictures() -> dict[str, Picture]:
    """By name: several shapes, odd sides, smaller than the 64 samples."""
    face = face_picture()
    return {
        "face": face,
        "face, cut out": np.ascontiguousarray(face[20:320, 101:300]),
        "wide": waves(1280, 720),
        "high": waves(541, 961, 1),
        "small": waves(50, 40, 2),
        "blocks": np.kron(waves(16, 9, 3), np.ones((40, 40, 1), np.uint8)),
        "flat": np.full((480, 640, 3), 90, np.uint8),
    }
