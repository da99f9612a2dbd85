"""The images behind a manifest: files, or members of tar shards read in place."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from models.errors import UnmaskError
from pipeline.types import Image
from pipeline.video.clip import Limits

_LIMITS = Limits()


class ImageError(UnmaskError, ValueError):
    """An image that is missing or cannot be decoded; the message names it."""


class ImageStore:
    """Reads images by the paths of a manifest.

    A shard is indexed once, when its first member is asked for; members are then read in place, so any order is as
    fast as any other. Safe to share between threads and to pass to worker processes.
    """

    def __init__(self, root: Path) -> None:
        """Read relative paths from `root`."""
        self.root = root
        self._members: dict[Path, dict[str, tuple[int, int]]] = {}
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        """The encoded bytes of an image file or of a member `shard.tar/member`.

        Raises:
            ImageError: no such file or member, or it cannot be read.
        """
        try:
            shard, member = _split(self.root / path)
            if member is None:
                return shard.read_bytes()
            descriptor, members = self._shard(shard)
            if member not in members:
                raise ImageError(f"{shard}: has no member {member}")
            offset, size = members[member]
            return os.pread(descriptor, size, offset)
        except (OSError, tarfile.TarError) as error:
            raise ImageError(f"{path}: cannot be read: {error}") from error

    def load(self, path: str) -> Image:
        """The image, uint8 [H, W, 3], RGB.

        Raises:
            ImageError: as `read`, or the bytes are not an image.
        """
        return decode(self.read(path), path)

    def _shard(self, shard: Path) -> tuple[int, dict[str, tuple[int, int]]]:
        with self._lock:
            if shard not in self._members:
                with tarfile.open(shard) as tar:
                    self._members[shard] = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
                self._files[shard] = os.open(shard, os.O_RDONLY)
            return self._files[shard], self._members[shard]

    def __getstate__(self) -> dict[str, object]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]

    def __del__(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)


def decode(data: bytes, name: str = "image") -> Image:
    """Encoded bytes as uint8 [H, W, 3], RGB.

    Raises:
        ImageError: OpenCV cannot read them as an image, or it has more pixels than a scan accepts.
    """
    try:
        # Only the header: a few kB can hold an image of gigabytes.
        with PIL.Image.open(io.BytesIO(data)) as header:
            width, height = header.size
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise ImageError(f"{name}: not an image: {error}") from error
    if width * height > _LIMITS.max_pixels:
        raise ImageError(f"{name}: {width} x {height} pixels, at most {_LIMITS.max_pixels} are read")
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"{name}: not an image: {error}") from error
    if bgr is None:
        raise ImageError(f"{name}: not an image")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _split(path: Path) -> tuple[Path, str | None]:
    """`a/b.tar/c/d.jpg` -> (`a/b.tar`, `c/d.jpg`); a path without a shard in it -> (path, None)."""
    for parent in path.parents:
        if parent.suffix == ".tar" and parent.is_file():
            return parent, str(path.relative_to(parent))
    return path, None
