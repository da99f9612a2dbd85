"""What a detector sees of a face: the crop of its input spec, and further looks at the same face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from pipeline.faces.crop import crops_of, cut_crops, resized
from pipeline.types import Crops, Faces, Frame, Image

LOOKS = ("flip", "scales")
# Sides of the crops of `scales`, in parts of the whole one. They are inside it, so a stored crop contains them too.
ZOOMS = (1.0, 0.95, 0.9)


@dataclass(frozen=True, slots=True)
class Looks:
    """Looks at each face in addition to the plain one; the log-odds of all are averaged. None by default.

    Attributes:
        flip: each crop and its mirror image.
        scales: each crop, and its middle at the sizes of `ZOOMS`.
    """

    flip: bool = False
    scales: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Looks:
        """From names with commas between; empty or None: no further looks.

        Raises:
            ValueError: an unknown name.
        """
        names = [name.strip() for name in (text or "").split(",") if name.strip()]
        if unknown := sorted(set(names) - set(LOOKS)):
            raise ValueError(f"unknown looks: {', '.join(unknown)}; there are: {', '.join(LOOKS)}")
        return cls("flip" in names, "scales" in names)

    def __bool__(self) -> bool:
        return self.flip or self.scales

    def describe(self) -> str:
        """The form that `parse` reads, for the record."""
        return ",".join(name for name in LOOKS if getattr(self, name))

    def views(self, spec: InputSpec) -> tuple[View, ...]:
        """All looks at a face, the plain one first."""
        return tuple(
            View.of(spec, zoom, flipped)
            for flipped in ((False, True) if self.flip else (False,))
            for zoom in (ZOOMS if self.scales else ZOOMS[:1])
        )


@dataclass(frozen=True, slots=True)
class View:
    """One way to cut a face. Views of detectors that differ in normalisation alone are equal.

    Attributes:
        spec: size, geometry and interpolation; mean and std are those of ImageNet, whatever the detector has.
        zoom: side of the crop in parts of the spec's, with the same middle.
        flipped: left and right swapped.
    """

    spec: InputSpec
    zoom: float = 1.0
    flipped: bool = False

    @classmethod
    def of(cls, spec: InputSpec, zoom: float = 1.0, flipped: bool = False) -> View:
        """The view of a detector's input."""
        return cls(replace(spec, mean=IMAGENET_MEAN, std=IMAGENET_STD), zoom, flipped)

    def of_picture(self, picture: Image) -> Image:
        """From a stored crop, uint8 [H, W, 3], which has the spec's geometry: uint8 [size, size, 3]."""
        height, width = picture.shape[:2]
        if self.zoom < 1:
            rows, columns = max(1, round(height * self.zoom)), max(1, round(width * self.zoom))
            top, left = (height - rows) // 2, (width - columns) // 2
            picture = picture[top : top + rows, left : left + columns]
        cut = resized(picture, self.spec.size, self.spec.interpolation)
        return np.ascontiguousarray(cut[:, ::-1]) if self.flipped else cut


def crops_with_views(frame: Frame, faces: Faces, spec: InputSpec, views: Sequence[View]) -> Crops:
    """The crops of a frame's faces as `crops_of` cuts them, and in `views` those of each view, in its order.

    Each is cut from the frame with the size, geometry and interpolation of its own view: resizing a crop twice would
    give other pixels than in training.
    """
    crops = crops_of(frame, faces, spec)
    cut: dict[View, Image] = {View.of(spec): crops.pixels}

    def pixels(view: View) -> Image:
        if view not in cut:
            if view.flipped:
                cut[view] = np.ascontiguousarray(pixels(replace(view, flipped=False))[:, :, ::-1])
            else:
                cut[view] = cut_crops(frame.image, faces, view.spec, zoom=view.zoom)
        return cut[view]

    return replace(crops, views=tuple(pixels(view) for view in views))
