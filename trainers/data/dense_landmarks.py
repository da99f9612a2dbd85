"""The 478 points of MediaPipe's face landmarker, run by OpenVINO on the crops of a manifest.

The net is from the task file `face_landmarker_v2_with_blendshapes.task` (Google, Apache-2.0), a zip of TFLite models.
Input: an upright square around the face, 256 px, RGB in 0..1. Outputs: 478 points (x, y, z) in px of the input, and
log-odds of a face. The square is 1.5 times as large as the box around the points (MediaPipe's
`face_landmarks_from_roi` graphs); a first pass from the five landmarks finds that box, a second one measures.
"""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.errors import UnmaskError
from pipeline import quiet_openvino
from pipeline.types import Floats, Image
from trainers.augment.outline import template_landmarks
from trainers.data.dense_store import DENSE_FILE, MIN_SCORE, POINTS, write_dense
from trainers.data.images import ImageStore
from trainers.data.manifest import REAL, Manifest

TASK_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
_NET = "face_landmarks_detector.tflite"
_INPUT_PX = 256
# Face from chin to hairline in eye distances, times the margin, and its middle below the eyes (`outline.FIVE_POINTS`).
_FIRST_SIDE, _FIRST_BELOW = 4.4, 0.3
_MARGIN = 1.5
# Outer corners of the eyes: they give the head's roll.
_EYE_CORNERS = (33, 263)


class TaskFileError(UnmaskError, ValueError):
    """A task file that cannot be used; the message names the expected file."""


class DenseLandmarker:
    """Finds 478 points of the face in a crop, from its five landmarks. For one thread at a time."""

    def __init__(self, task: Path, *, threads: int = 1) -> None:
        """Compile the net.

        Args:
            task: MediaPipe's `face_landmarker_v2_with_blendshapes.task`.
            threads: for one inference.

        Raises:
            TaskFileError: the file cannot be read, or is not the pinned one.
        """
        try:
            data = task.read_bytes()
        except OSError as error:
            raise TaskFileError(f"{task}: cannot be read: {error}") from error
        if (found := hashlib.sha256(data).hexdigest()) != TASK_SHA256:
            raise TaskFileError(
                f"{task}: expected MediaPipe's face_landmarker_v2_with_blendshapes.task with sha256 {TASK_SHA256}, "
                f"got {found}"
            )
        core = quiet_openvino.core()
        # OpenVINO reads TFLite from files only.
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(data)) as archive:
            model = core.read_model(archive.extract(_NET, folder))
        self._net: Any = core.compile_model(
            model, "CPU", {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        )

    def find(self, image: Image, landmarks: Floats) -> tuple[Floats, float]:
        """The mesh of a face.

        Args:
            image: uint8 [H, W, 3], RGB.
            landmarks: float32 [5, 2], px.

        Returns:
            Points float32 [478, 2], px of `image`, and the log-odds that they are on a face.
        """
        eyes, mouth = landmarks[:2].mean(axis=0), landmarks[3:].mean(axis=0)
        across = landmarks[1] - landmarks[0]
        # A turned head has its eyes closer together, a nodding one its mouth closer to them.
        unit = max(float(np.linalg.norm(across)), float(np.linalg.norm(mouth - eyes)) / 1.07)
        roll = math.atan2(float(across[1]), float(across[0]))
        centre = eyes + _FIRST_BELOW * unit * np.array([-math.sin(roll), math.cos(roll)])
        points, _ = self._look(image, centre, _FIRST_SIDE * unit, roll)
        low, high = points.min(axis=0), points.max(axis=0)
        left, right = points[list(_EYE_CORNERS)]
        roll = math.atan2(float(right[1] - left[1]), float(right[0] - left[0]))
        return self._look(image, (low + high) / 2, _MARGIN * float((high - low).max()), roll)

    def _look(self, image: Image, centre: Floats, side: float, roll: float) -> tuple[Floats, float]:
        scale, half = side / _INPUT_PX, _INPUT_PX / 2
        cos, sin = math.cos(roll) * scale, math.sin(roll) * scale
        linear = np.array([[cos, -sin], [sin, cos]])
        shift = centre - linear @ [half, half]
        # Black outside the picture, as in MediaPipe: repeated edges look like a continued face.
        square = cv2.warpAffine(
            image,
            np.column_stack([linear, shift]),
            (_INPUT_PX, _INPUT_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        )
        outputs = self._net(square[None].astype(np.float32) / np.float32(255))
        points = np.asarray(outputs[0]).reshape(POINTS, 3)[:, :2]
        return np.asarray(points @ linear.T + shift, np.float32), float(np.asarray(outputs[1]).ravel()[0])


def write_landmarks(
    manifest: Manifest,
    landmarker: DenseLandmarker,
    *,
    fakes: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Find the dense landmarks of a manifest's crops and write them next to it.

    Args:
        manifest: for rows without five landmarks, the usual places in a crop are tried.
        landmarker: the net.
        fakes: also process fakes; pseudo-fakes need only reals.
        progress: called with rows done and all rows.

    Returns:
        Rows processed, and rows with a reliable mesh.

    Raises:
        trainers.data.images.ImageError: an image is missing or damaged.
        OSError: the file cannot be written.
    """
    rows = np.arange(len(manifest)) if fakes else np.flatnonzero(manifest.label == REAL)
    store = ImageStore(manifest.root)
    points = np.zeros((len(rows), POINTS, 2), np.float32)
    scores = np.full(len(rows), np.nan, np.float32)
    for i, row in enumerate(rows):
        image = store.load(str(manifest.path[row]))
        landmarks = manifest.landmarks[row]
        if not np.isfinite(landmarks).all():
            landmarks = template_landmarks(image.shape[0])
        points[i], scores[i] = landmarker.find(image, landmarks)
        if progress is not None and (i % 200 == 199 or i + 1 == len(rows)):
            progress(i + 1, len(rows))
    paths = [str(manifest.path[row]) for row in rows]
    write_dense(manifest.root / DENSE_FILE, paths, points, scores, TASK_SHA256)
    return len(rows), int((scores >= MIN_SCORE).sum())
