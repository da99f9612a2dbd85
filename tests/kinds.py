"""Files of many kinds: containers, codecs, pixel formats, turns and damages, by a seeded generator."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from av.codec import codecs_available

from tests import media

# Container, encoder of libav, pixel format.
_FORMATS = (
    ("mp4", "libx264", "yuv420p"), ("mp4", "libx264", "yuv444p"), ("mp4", "libx265", "yuv420p10le"),
    ("mp4", "mpeg4", "yuv420p"), ("mp4", "mjpeg", "yuvj420p"), ("mp4", "libsvtav1", "yuv420p"),
    ("mkv", "libx264", "yuv422p"), ("mkv", "libx265", "yuv420p"), ("mkv", "ffv1", "yuv420p"),
    ("mkv", "libvpx", "yuv420p"), ("mkv", "mjpeg", "yuvj444p"), ("webm", "libvpx", "yuv420p"),
    ("webm", "libvpx-vp9", "yuv420p"), ("avi", "mpeg4", "yuv420p"), ("avi", "mjpeg", "yuvj422p"),
    ("avi", "libx264", "yuv420p"), ("ts", "libx264", "yuv420p"), ("ts", "libx265", "yuv420p"),
    ("ts", "mpeg2video", "yuv420p"), ("mpg", "mpeg2video", "yuv420p"), ("mov", "prores_ks", "yuv422p10le"),
    ("mov", "libx264", "yuv420p"), ("flv", "flv", "yuv420p"), ("flv", "libx264", "yuv420p"),
    ("wmv", "wmv2", "yuv420p"), ("nut", "ffv1", "yuv444p"), ("h264", "libx264", "yuv420p"),
    ("gif", "gif", "rgb8"), ("apng", "apng", "rgb24"),
)  # fmt: skip
_SIZES = ((480, 270), (320, 240), (270, 480), (642, 362))
_TURNS = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))
_FPS = 25
# Encoders that print their settings.
_QUIET = {"libx265": {"x265-params": "log-level=none"}}
_TS_PACKET = 188


@dataclass(frozen=True, slots=True)
class Kind:
    """One generated file.

    Attributes:
        path: of the file.
        text: how it was made.
        faces: people in it.
        damage: its name; "none" for a whole file.
    """

    path: Path
    text: str
    faces: int
    damage: str


Damage = Callable[[bytes, random.Random], bytes]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: int(len(content) * rng.uniform(0.02, 0.95))]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    length = int(len(content) * rng.uniform(0.02, 0.4))
    start = rng.randrange(len(content) - length)
    return content[:start] + bytes(length) + content[start + length :]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice([3, 30, 300])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _lost(content: bytes, rng: random.Random) -> bytes:
    """Some of its packets are missing, as after a transmission."""
    packets = [content[start : start + _TS_PACKET] for start in range(0, len(content), _TS_PACKET)]
    share = rng.choice([0.005, 0.03, 0.1])
    return b"".join(packet for packet in packets if rng.random() >= share)


def _new_head(content: bytes, rng: random.Random) -> bytes:
    length = rng.randrange(1, 64)
    return rng.randbytes(length) + content[length:]


def _tail(content: bytes, rng: random.Random) -> bytes:
    return content + rng.randbytes(rng.randrange(1, 5_000))


def _stub(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice([0, 1, 8, 100])]


DAMAGES: dict[str, Damage] = {
    "none": lambda content, rng: content, "cut": _cut, "zeroed": _zeroed, "flipped": _flipped, "lost": _lost,
    "head": _new_head, "tail": _tail, "stub": _stub,
}  # fmt: skip


@cache
def _pictures(faces: int) -> tuple[media.Picture, ...]:
    """Two seconds, 640 x 360."""
    scene = media.Scene(640, 360, people=((0.0, 9.0),) * faces, face_px=(120, 130), seed=faces)
    return tuple(scene.render(n / _FPS) for n in range(2 * _FPS))


def make_kinds(folder: Path, count: int, seed: int = 0) -> list[Kind]:
    """Write so many files. Two of five are whole; formats that this libav cannot write are left out.

    Args:
        folder: to write them to.
        count: how many.
        seed: of the choices; the same files each time.
    """
    rng = random.Random(seed)
    formats = [each for each in _FORMATS if each[1] in codecs_available]
    names = [name for name in DAMAGES if name != "none"]
    kinds: list[Kind] = []
    for number in range(count):
        suffix, codec, pix_fmt = formats[number % len(formats)]
        faces, size, turn = rng.choice([0, 1, 1, 1, 2]), rng.choice(_SIZES), rng.choice([0, 0, 0, 1, 2, 3])
        if suffix not in ("mp4", "mov"):
            turn = 0
        if size[0] < size[1]:
            faces = min(faces, 1)  # two are at the sides, and would be cut off
        path = folder / f"{number:03}.{suffix}"
        upright = (np.ascontiguousarray(np.rot90(_fitted(image, size), turn)) for image in _pictures(faces))
        times = ((n / _FPS, image) for n, image in enumerate(upright))
        options = _QUIET.get(codec)
        media.encode(path, times, fps=_FPS, codec=codec, pix_fmt=pix_fmt, display=_TURNS[turn], options=options)
        damage = rng.choice(names) if rng.random() < 0.6 else "none"
        content = DAMAGES[damage](path.read_bytes(), rng)
        path.write_bytes(content)
        if rng.random() < 0.1:
            path = path.rename(path.with_suffix(rng.choice([".mp4", ".bin", ""])))
        text = f"{suffix} {codec} {pix_fmt} {size[0]}x{size[1]} turn {turn * 90} faces {faces} damage {damage}"
        kinds.append(Kind(path, text, faces, damage))
    return kinds


def _fitted(image: media.Picture, size: tuple[int, int]) -> media.Picture:
    """The middle of a picture in another shape, without a change of proportions."""
    height, width = image.shape[:2]
    scale = max(size[0] / width, size[1] / height)
    large = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    left, top = (large.shape[1] - size[0]) // 2, (large.shape[0] - size[1]) // 2
    return np.ascontiguousarray(large[top : top + size[1], left : left + size[0]], np.uint8)
