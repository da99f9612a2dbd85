"""Scores of a manifest's images, computed as in serving: same resampling, same graph, same backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from models.architectures import LoadedDetector
from models.base import BaseModel
from models.cores import available_cores
from models.spec import InputSpec
from pipeline.faces.clarity import PATCH_PX, clarity
from pipeline.faces.crop import resized
from pipeline.faces.views import View
from pipeline.scoring.backend import Backend, BackendError
from pipeline.scoring.backends import create_backend
from pipeline.types import Floats, Image
from trainers.augment.degrade import jpeg_size_bytes
from trainers.data.images import ImageError, ImageStore
from trainers.data.manifest import Manifest
from trainers.evaluation.crop_quality import crop_quality, face_width_px
from trainers.evaluation.inference import infer
from trainers.evaluation.panel import PanelBackend

Transform = Callable[[Image, int], Image]
Progress = Callable[[int], None]

# Nearly lossless: the size reflects the picture's contents, not how it was stored.
JPEG_SIZE_QUALITY = 90


class Measures(NamedTuple):
    """Measurements on each stored crop besides its score: float32 [N] each, nan if it could not be read.

    Attributes:
        sharpness: see `pipeline.faces.clarity.clarity`, on the whole crop.
        brightness: mean grey level, 0..255.
        jpeg_bytes: size as JPEG of quality 90.
    """

    sharpness: Floats
    brightness: Floats
    jpeg_bytes: Floats


@dataclass(frozen=True, eq=False, slots=True)
class ScoredImages:
    """Scores of N images.

    Attributes:
        logits: float32 [N], log-odds of fake before calibration; nan if missing.
        failures: row and reason of the images that could not be read or degraded.
        measures: all nan unless requested.
        quality: float32 [N] in 0..1 of the scored crops, see `crop_quality`; nan unless requested.
        face_px: float32 [N], see `face_width_px`; nan unless the quality was requested, and where unknown.
    """

    logits: Floats
    failures: dict[int, str]
    measures: Measures
    quality: Floats
    face_px: Floats


def score_manifest(
    detector: BaseModel | LoadedDetector | Backend,
    spec: InputSpec,
    manifest: Manifest,
    *,
    transform: Transform | None = None,
    batch: int = 64,
) -> Floats:
    """Log-odds of fake of each image, before calibration: float32 [N], nan if an image cannot be read.

    Args:
        detector: a model (its mode does not change), a loaded checkpoint, or a backend that stays open.
        spec: input of that detector.
        manifest: N rows.
        transform: done to each stored crop before it is resized; given the crop, uint8 [H, W, 3] RGB, and its row.
        batch: images loaded ahead.

    Raises:
        BackendError: the backend is not available, has another input size, or fails.
    """
    with open_backend(detector) as backend:
        return score_images(backend, spec, manifest, transform=transform, batch=batch).logits


@contextmanager
def open_backend(
    detector: BaseModel | LoadedDetector | Backend, *, backend: str = "auto", device: str = "auto"
) -> Iterator[Backend]:
    """The backend of a detector, closed at the end of the block; a given backend stays open.

    Raises:
        BackendError: it is not available here.
        DeviceError: the device does not exist.
    """
    model = detector.model if isinstance(detector, LoadedDetector) else detector
    if not isinstance(model, BaseModel):
        yield model
        return
    was_training = model.training
    scoring = create_backend(model, backend=backend, device=device)
    try:
        yield scoring
    finally:
        scoring.close()
        model.train(was_training)


def score_images(
    backend: Backend | PanelBackend,
    spec: InputSpec,
    manifest: Manifest,
    *,
    transform: Transform | None = None,
    measure: bool = False,
    quality: bool = False,
    size: float = 1.0,
    batch: int = 64,
    progress: Progress | None = None,
) -> ScoredImages:
    """As `score_manifest`, with the reasons of failures and, if requested, measures of the stored crops.

    Args:
        backend: computes the scores; for a panel, each image is resized for each of its views.
        spec: input spec of its detector.
        manifest: N rows.
        transform: see `score_manifest`. It may raise `ImageError`.
        measure: also fill in `measures`.
        quality: also fill in `quality` and `face_px`.
        size: of the faces after `transform`, in parts of their size in the source; below 1 if it shrinks them.
        batch: images loaded ahead.
        progress: called with the number of images done.

    Raises:
        BackendError: the backend has another input size, or fails.
    """
    if backend.input_size != spec.size:
        raise BackendError(f"the backend takes {backend.input_size} px, the input spec has {spec.size} px")
    store = ImageStore(manifest.root)
    views = getattr(backend, "views", (View.of(spec),))
    rows = len(manifest)
    logits, measures = np.full(rows, np.nan, np.float32), np.full((3, rows), np.nan, np.float32)
    qualities, widths = np.full(rows, np.nan, np.float32), np.full(rows, np.nan, np.float32)
    failures: dict[int, str] = {}

    def load(row: int) -> list[Image] | str:
        try:
            image = store.load(str(manifest.path[row]))
            if measure:
                measures[:, row] = _measure(image)
            seen = image if transform is None else transform(image, row)
            if quality:
                source_px = float(manifest.source_width[row]) * size
                qualities[row] = crop_quality(seen, manifest.landmarks[row], source_px)
                widths[row] = face_width_px(manifest.landmarks[row], seen.shape[1], source_px)
            return [view.of_picture(seen) for view in views]
        except ImageError as error:
            return str(error)

    with ThreadPoolExecutor(available_cores(), thread_name_prefix="images") as pool:

        def ahead(start: int) -> list[Future[list[Image] | str]]:
            return [pool.submit(load, row) for row in range(start, min(start + batch, rows))]

        loading = ahead(0)
        for start in range(0, rows, batch):
            # The next images load while these are scored.
            loaded, loading = [each.result() for each in loading], ahead(start + batch)
            good = [i for i, image in enumerate(loaded) if not isinstance(image, str)]
            failures.update({start + i: image for i, image in enumerate(loaded) if isinstance(image, str)})
            if good:
                columns = zip(*(image for image in loaded if not isinstance(image, str)), strict=True)
                crops = [np.stack(column) for column in columns]
                rows_scored = [start + i for i in good]
                logits[rows_scored] = _infer(backend, crops)
            if progress is not None:
                progress(min(start + batch, rows))
    return ScoredImages(logits, failures, Measures(*measures), qualities, widths)


def _infer(backend: Backend | PanelBackend, crops: Sequence[Image]) -> Floats:
    """Scores of the crops of each view."""
    return backend.infer(crops) if isinstance(backend, PanelBackend) else infer(backend, crops[0])


def _measure(image: Image) -> Sequence[float]:
    grey = cv2.cvtColor(resized(image, PATCH_PX, "area"), cv2.COLOR_RGB2GRAY)
    return clarity(grey), float(grey.mean()), float(jpeg_size_bytes(image, JPEG_SIZE_QUALITY))
