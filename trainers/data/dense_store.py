"""Dense landmarks of the crops of a manifest, in a file next to it: written once, read a row at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.types import Floats

# In the folder of the manifest, which relative paths start from.
DENSE_FILE = "dense.safetensors"
# Points of MediaPipe's face landmarker: 468 of the mesh, 5 of each iris.
POINTS = 478
# Lowest log-odds of a face at which a mesh is used: a probability of .95. MediaPipe's own default of .5 lets
# through meshes of faces in profile whose far half is guessed.
MIN_SCORE = 3.0
_FORMAT = "unmask-dense-landmarks-1"
_REMEDY = "delete it, or write it again with `unmask data landmarks`"


class DenseLandmarksError(UnmaskError, ValueError):
    """A file of dense landmarks that cannot be read; the message names it and says what to do."""


def write_dense(file: Path, paths: Sequence[str], points: Floats, scores: Floats, source_sha256: str) -> None:
    """Write dense landmarks, the whole file or nothing.

    Args:
        file: usually `DENSE_FILE` in the folder of a manifest.
        paths: N paths as in the manifest.
        points: float32 [N, 478, 2], px of the stored crop.
        scores: float32 [N], log-odds that the mesh shows a face; nan for rows without one.
        source_sha256: of the file that the landmark net comes from.

    Raises:
        OSError: the file cannot be written.
    """
    keys = np.array([_key(path) for path in paths], np.uint64)
    order = np.argsort(keys)
    # Half precision resolves an eighth of a px in crops of up to 256 px, below the net's own error.
    tensors = {
        "keys": keys[order],
        "points": np.ascontiguousarray(points[order], np.float16),
        "scores": np.ascontiguousarray(scores[order], np.float32),
    }
    with atomic_write(file) as opened:
        opened.write(save(tensors, metadata={"format": _FORMAT, "source_sha256": source_sha256}))


class DenseStore:
    """Reads dense landmarks by the paths of a manifest.

    Only keys and scores are held in memory, points are mapped from the file. Cheap to pass to worker processes.
    """

    def __init__(self, file: Path) -> None:
        """Open a file that `write_dense` wrote.

        Raises:
            DenseLandmarksError: it cannot be read or has another format.
        """
        self.file = file
        try:
            with safe_open(file, framework="numpy") as opened:
                form = (opened.metadata() or {}).get("format")
                if form != _FORMAT:
                    raise DenseLandmarksError(f"{file}: holds {form!r}, expected {_FORMAT!r}: {_REMEDY}")
                self._keys: npt.NDArray[np.uint64] = opened.get_tensor("keys")
                self._scores: Floats = opened.get_tensor("scores")
            self._points = _mapped(file)
        except (OSError, SafetensorError, KeyError) as error:
            raise DenseLandmarksError(f"{file}: cannot be read: {error}; {_REMEDY}") from error

    @classmethod
    def next_to(cls, root: Path) -> DenseStore | None:
        """The store in a manifest's folder, or None if the file does not exist."""
        file = root / DENSE_FILE
        return cls(file) if file.exists() else None

    def __len__(self) -> int:
        return len(self._keys)

    def points(self, path: str) -> Floats | None:
        """float32 [478, 2], px of the stored crop; None if the mesh is unknown or unreliable."""
        key = _key(path)
        row = int(np.searchsorted(self._keys, np.uint64(key)))
        if row == len(self._keys) or int(self._keys[row]) != key or not self._scores[row] >= MIN_SCORE:
            return None
        return np.asarray(self._points[row], np.float32)

    def __getstate__(self) -> dict[str, Path]:
        return {"file": self.file}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["file"])  # type: ignore[misc]


def _key(path: str) -> int:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "little")


def _mapped(file: Path) -> npt.NDArray[np.float16]:
    """The points as a memory map: safetensors is a length, a JSON header and the raw tensors."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))["points"]
    mapped = np.memmap(
        file, np.float16, mode="r", offset=8 + length + header["data_offsets"][0], shape=tuple(header["shape"])
    )
    return np.asarray(mapped)
