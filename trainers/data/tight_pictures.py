"""Crops from single pictures that already show one face and little else, such as an aligned data set.

A detector made for whole scenes misses faces that fill a picture, so the picture gets a margin first. A scan
repeats the edge of a frame where a square reaches beyond it. In such a set nearly every crop would have such a stripe,
and a detector would learn that a stripe means real. So squares are moved inside, and pictures in which the square
would have to move far, or which have empty corners from an alignment, are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from pipeline.faces.crop import crop_squares, cut_square
from pipeline.types import Faces, Floats, Image
from trainers.data.frame_source import read_picture
from trainers.data.video_crops import LANDMARK_REACH, CroppedVideo, Cutter, FaceCrop, NoCropsError

# Margin on each side for the face search, in parts of the longer side of the picture. YuNet finds the face in
# each of 99 pictures of UTKFace either way, but places the square 5 % too wide without a margin.
MARGIN = 0.5
# How far a square may move or shrink to fit inside its picture, in parts of its side. 97 % of UTKFace need 0.07.
MOST_MOVED = 0.1
# Smallest eye distance of the picture's main face, in parts of the shorter side of the picture.
EYE_DISTANCE = (0.1, 0.8)
# Pixels up to this level connected to a corner are empty; a crop may have this share of them.
EMPTY_LEVEL, MOST_EMPTY = 3, 0.01
# Smaller faces are too small to show a forgery.
SMALLEST_PX = 60


@dataclass(frozen=True, slots=True)
class TightCutter(Cutter):
    """Cuts one face out of each picture, without the edge of the picture in the crop."""

    def cut(self, path: Path, clip_id: str) -> CroppedVideo:
        """Find and cut the face of a picture.

        Raises:
            DecodeError: the file is not a picture, or exceeds a limit.
            NoCropsError: it shows no face, or the square around the face does not fit inside.
        """
        image = read_picture(path, self.server)
        face = _main_face(self, image)
        x0, y0, side = (float(value) for value in crop_squares(face, self.spec.geometry)[0])
        x, y, inside = fitted((x0, y0, side), image.shape[0], image.shape[1])
        moved = max(abs(x - x0), abs(y - y0), side - inside) / side
        if moved > MOST_MOVED:
            raise NoCropsError("low_quality", f"the face reaches over the edge by {moved:.2f} of the crop's side")
        if inside < SMALLEST_PX:
            raise NoCropsError("low_quality", f"the face is {inside:.0f} px wide, at least {SMALLEST_PX} px are needed")
        window = image[round(y) : round(y) + int(inside), round(x) : round(x) + int(inside)]
        if (empty := empty_share(window)) > MOST_EMPTY:
            raise NoCropsError("low_quality", f"empty corners cover {empty:.2f} of the crop")
        return CroppedVideo((self._crop(image, face, (x, y, inside)),), None, 1.0)

    def _crop(self, image: Image, face: Faces, square: tuple[float, float, float]) -> FaceCrop:
        x, y, side = square
        size = self.spec.size
        landmarks = (face.landmarks[0] - np.array([round(x), round(y)], np.float32)) * np.float32(size / int(side))
        offset = np.abs(landmarks / size - 0.5).max()
        return FaceCrop(
            pixels=cut_square(image, x, y, int(side), size, self.spec.interpolation),
            index=0,
            t_s=0.0,
            track=0,
            quality=1.0,
            width_px=int(side),
            landmarks=landmarks if offset <= LANDMARK_REACH else np.full((5, 2), np.nan, np.float32),
            face=face,
            frame_size=(image.shape[0], image.shape[1]),
            around=np.zeros((0, 0), np.uint8),
        )


def fitted(square: tuple[float, float, float], height: int, width: int) -> tuple[float, float, float]:
    """The nearest square inside a picture: x, y and side in whole pixels, shrunk only where it is too large.

    Args:
        square: x, y and side in px.
        height: of the picture in px.
        width: of the picture in px.
    """
    x, y, side = square
    inside = max(1, min(round(side), height, width))
    # A shrunk square keeps its middle.
    shift = (side - inside) / 2
    left = min(max(round(x + shift), 0), width - inside)
    top = min(max(round(y + shift), 0), height - inside)
    return float(left), float(top), float(inside)


def empty_share(image: Image) -> float:
    """The share of pixels that are black and connected to a black corner of the picture, 0 to 1."""
    black = (image.max(axis=2) <= EMPTY_LEVEL).astype(np.uint8)
    _, parts = cv2.connectedComponents(black, connectivity=4)
    corners = {int(parts[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    return float(np.isin(parts, list(corners)).mean()) if corners else 0.0


def _main_face(cutter: Cutter, image: Image) -> Faces:
    """The largest face of a picture, in px of the picture."""
    margin = round(max(image.shape[:2]) * MARGIN)
    roomy = np.asarray(cv2.copyMakeBorder(image, *(margin,) * 4, borderType=cv2.BORDER_REPLICATE))
    faces = cutter.detector.detect([roomy])[0]
    if not len(faces):
        raise NoCropsError("no_face", "no face in the picture")
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    face = faces.take(np.array([int(sides.prod(axis=1).argmax())]))
    eyes: Floats = face.landmarks[0, :2]
    apart = float(np.linalg.norm(eyes[1] - eyes[0])) / min(image.shape[:2])
    if not EYE_DISTANCE[0] <= apart <= EYE_DISTANCE[1]:
        raise NoCropsError("no_face", "the picture does not show one face and little else")
    return replace(
        face,
        boxes=face.boxes - np.float32(margin),
        landmarks=face.landmarks - np.float32(margin),
    )
