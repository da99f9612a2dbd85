"""A real face that pseudo-fakes are made from, and its mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.types import Floats, Image
from trainers.augment.mean_mesh import mean_mesh, mirrored, numbers
from trainers.augment.outline import affine_to


@dataclass(frozen=True, slots=True)
class Face:
    """A real face that a pseudo-fake is made from.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        landmarks: float32 [5, 2], px: eyes, nose, corners of the mouth.
        dense: float32 [P, 2], px: a dense mesh of the face (MediaPipe's 478 points); None if unknown.
    """

    image: Image
    landmarks: Floats
    dense: Floats | None = None

    @property
    def unit_px(self) -> float:
        """The eye distance; for a turned head, the value from the front."""
        eyes, mouth = self.landmarks[:2].mean(axis=0), self.landmarks[3:].mean(axis=0)
        across = float(np.linalg.norm(self.landmarks[1] - self.landmarks[0]))
        return max(across, float(np.linalg.norm(mouth - eyes)) / 1.07, 1.0)


def mesh_of(face: Face) -> Floats:
    """The face's mesh, float32 [163, 2], px: the dense landmarks, or an average face fitted to the five."""
    if face.dense is not None:
        return np.asarray(face.dense[numbers()], np.float32)
    points = np.column_stack([mean_mesh()[:, :2], np.ones(len(mean_mesh()))])
    return np.asarray(points @ affine_to(face.landmarks), np.float32)


def mirror(face: Face) -> Face:
    """The mirrored face; a dense mesh is reduced to the points of `mesh_of`."""
    width = face.image.shape[1]

    def flipped(points: Floats) -> Floats:
        return np.asarray(points * np.array([-1, 1], np.float32) + np.array([width - 1, 0], np.float32))

    dense = None
    if face.dense is not None:
        dense = np.zeros_like(face.dense)
        dense[numbers()] = flipped(face.dense[numbers()][mirrored()])
    return Face(np.ascontiguousarray(face.image[:, ::-1]), flipped(face.landmarks[[1, 0, 2, 4, 3]]), dense)
