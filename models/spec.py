"""InputSpec: the input that a detector expects. It is stored in the checkpoint, so training and serving cannot differ.

No torch here: the face code reads the crop geometry from this module.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]

# Means and standard deviations of the field's pretrained backbones (timm.data.constants).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INCEPTION_MEAN = (0.5, 0.5, 0.5)
INCEPTION_STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class BoxMargin:
    """A square around the middle of the face box: side = longer side of the box x (1 + 2 x margin)."""

    kind: ClassVar[str] = "box_margin"
    margin: float = 0.15

    def __post_init__(self) -> None:
        if not -0.4 <= self.margin <= 2.0:
            raise ValueError(f"margin must be in -0.4..2, got {self.margin}")


@dataclass(frozen=True, slots=True)
class LandmarkTemplate:
    """An upright square placed by the five landmarks: no rotation, all lengths in parts of its side.

    side = max(eye distance / eye_distance, eyes-to-mouth / eyes_to_mouth); its top is eyes_y x side above the
    eyes; left to right it is centred between the middle of the eyes and the middle of the mouth. The defaults are
    the geometry of DFDC face crops as measured on 247 real faces with YuNet landmarks.
    """

    kind: ClassVar[str] = "landmark_template"
    eye_distance: float = 0.403
    eyes_to_mouth: float = 0.426
    eyes_y: float = 0.28

    def __post_init__(self) -> None:
        for name in ("eye_distance", "eyes_to_mouth", "eyes_y"):
            if not 0.05 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in 0.05..1, got {getattr(self, name)}")


CropGeometry = BoxMargin | LandmarkTemplate
_GEOMETRIES: dict[str, type[BoxMargin] | type[LandmarkTemplate]] = {
    cls.kind: cls for cls in (BoxMargin, LandmarkTemplate)
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Input of a detector.

    Attributes:
        size: side of the square crop in px.
        mean: per channel (RGB), of values in 0..1.
        std: per channel (RGB), of values in 0..1.
        geometry: how the crop is placed on the face.
        interpolation: how the crop is resampled.
    """

    size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    geometry: CropGeometry = field(default_factory=LandmarkTemplate)
    interpolation: Interpolation = "area"

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ValueError(f"size must be at least 16 px, got {self.size}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes an equal spec."""
        geometry = {"kind": self.geometry.kind, **asdict(self.geometry)}
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "geometry": geometry}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """The spec that `to_dict` described.

        Raises:
            ValueError: a field is missing, unknown or out of range.
        """
        try:
            geometry = dict(values["geometry"])
            kind = geometry.pop("kind")
            if kind not in _GEOMETRIES:
                raise ValueError(f"unknown crop geometry {kind!r}; available: {', '.join(sorted(_GEOMETRIES))}")
            rest: dict[str, Any] = {
                name: tuple(value) if name in ("mean", "std") else value
                for name, value in values.items()
                if name != "geometry"
            }
            return cls(geometry=_GEOMETRIES[kind](**geometry), **rest)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not an input spec: {error}") from error

    @property
    def hash(self) -> str:
        """First 16 hex digits of sha256 over the canonical JSON form: equal inputs, equal hash."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]
