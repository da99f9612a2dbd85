"""Whether an exported detector scores like the one in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from models.architectures import load_detector
from models.base import BaseModel
from models.errors import UnmaskError
from pipeline import quiet_openvino
from pipeline.faces.crop import resized
from pipeline.graphs.make import ScoringGraph
from pipeline.interop import Format
from pipeline.types import Floats, Image

Scorer = Callable[[Image], Floats]

_RANDOM = 4
# Pictures of a folder to use: enough to run every operator on faces.
_MAX_PICTURES = 8
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# The astronaut of scikit-image from fringe to chin, in px: left, top, side.
_ASTRONAUT_FACE = (154, 55, 140)


class NoPicturesError(UnmaskError, ValueError):
    """The given path has no pictures for the check."""


@dataclass(frozen=True, slots=True)
class Check:
    """How far an exported detector is from the one in torch, in log-odds of fake.

    Attributes:
        reader: the runtime of the exported one.
        crops: how many were scored.
        difference: the largest one, absolute for log-odds in -1..1 and relative to them beyond.
        tolerance: the largest allowed difference.
    """

    reader: str
    crops: int
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether it is the same detector; False if the difference is NaN."""
        return self.difference <= self.tolerance


def random_crops(size: int) -> Image:
    """Noise, from fine to coarse: uint8 [4, size, size, 3], always the same."""
    rng = np.random.default_rng(0)
    grains = [max(2, size >> octave) for octave in range(_RANDOM)]
    noise = [rng.integers(0, 256, (grain, grain, 3), np.uint8) for grain in grains]
    return np.stack([cv2.resize(grain, (size, size), interpolation=cv2.INTER_LINEAR) for grain in noise])


def face_crops(size: int, pictures: Path | None = None) -> Image:
    """Faces to check on: uint8 [N, size, size, 3].

    Args:
        size: of the crops in px.
        pictures: an image file, or a folder of which the first eight are taken, each with a face that fills it. None:
            the astronaut of scikit-image, upright and mirrored, if that is installed, else nothing.

    Raises:
        NoPicturesError: it has no readable image.
    """
    if pictures is None:
        faces = _astronaut() if find_spec("skimage") is not None else []
    else:
        files = sorted(pictures.iterdir()) if pictures.is_dir() else [pictures]
        files = [file for file in files if file.suffix.lower() in _SUFFIXES][:_MAX_PICTURES]
        faces = [_middle(_read(file)) for file in files]
        if not faces:
            raise NoPicturesError(f"{pictures}: no {', '.join(_SUFFIXES)} to check on")
    return (
        np.stack([resized(face, size, "area") for face in faces]) if faces else np.empty((0, size, size, 3), np.uint8)
    )


def checked(
    model: BaseModel, target: Format, path: Path, crops: Image, *, batch: int | None, tolerance: float
) -> Check:
    """Score crops with an exported file and with its model.

    Args:
        model: in eval mode, without autocast.
        target: the format of the file.
        path: of the file.
        crops: uint8 [N, size, size, 3], N >= 2.
        batch: the batch size of the graph; None: any, so two different sizes are tried.
        tolerance: of the result.
    """
    with torch.inference_mode():
        exact = ScoringGraph(model)(torch.from_numpy(crops)).numpy()
    score, reader = _scorer(target, path)
    parts = [crops[:1], crops[1:]] if batch is None else _batches(crops, batch)
    found = np.concatenate([score(part) for part in parts])[: len(crops)]
    difference = np.abs(found - exact) / np.maximum(1, np.abs(exact))
    return Check(reader, len(crops), float(difference.max()), tolerance)


def _batches(crops: Image, batch: int) -> list[Image]:
    """Full batches; the last is padded with the first crop."""
    missing = -len(crops) % batch
    filled = np.concatenate([crops, np.repeat(crops[:1], missing, axis=0)])
    return [filled[start : start + batch] for start in range(0, len(filled), batch)]


def _scorer(target: Format, path: Path) -> tuple[Scorer, str]:
    if target is Format.SAFETENSORS:
        return _torch_scorer(path), f"torch {torch.__version__}"
    if find_spec("openvino") is not None:
        ov = quiet_openvino.load()
        try:
            return _openvino_scorer(path), f"OpenVINO {ov.__version__.partition('-')[0]}"
        except RuntimeError:
            # Its ONNX reader cannot read a Fourier transform, where complex numbers are pairs.
            if target is Format.OPENVINO:
                raise
    import onnx

    return _reference_scorer(path), f"onnx {onnx.__version__}, reference evaluator"


def _torch_scorer(path: Path) -> Scorer:
    model = load_detector(path).model
    model.mixed_precision = False
    graph = ScoringGraph(model).eval()

    def score(crops: Image) -> Floats:
        with torch.inference_mode():
            return np.asarray(graph(torch.from_numpy(crops)))

    return score


def _openvino_scorer(path: Path) -> Scorer:
    compiled = quiet_openvino.core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda crops: np.array(compiled(crops)[0])


def _reference_scorer(path: Path) -> Scorer:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    (name,) = evaluator.input_names

    def score(crops: Image) -> Floats:
        outputs: Any = evaluator.run(None, {name: crops})
        return np.asarray(outputs[0])

    return score


def _astronaut() -> list[Image]:
    import skimage.data

    x, y, side = _ASTRONAUT_FACE
    face = skimage.data.astronaut()[y : y + side, x : x + side]
    return [face, face[:, ::-1]]


def _read(file: Path) -> Image:
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise NoPicturesError(f"{file}: cannot be read as a picture")
    return np.asarray(picture, np.uint8)


def _middle(picture: Image) -> Image:
    """The central square."""
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[top : top + side, left : left + side]
