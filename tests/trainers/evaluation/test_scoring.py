"""`score_manifest`, used by calibration and the training loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.architectures import LoadedDetector, load_detector
from models.precision import Precision
from pipeline.faces.clarity import PATCH_PX, clarity
from pipeline.faces.crop import resized
from pipeline.scoring.backend import Backend, BackendError
from pipeline.scoring.backends import create_backend
from pipeline.scoring.torch_backend import TorchBackend
from pipeline.types import Image
from tests.trainers.evaluation.conftest import SIZE_PX
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest
from trainers.evaluation.inference import infer
from trainers.evaluation.scoring import open_backend, score_images, score_manifest


@pytest.fixture(scope="module")
def rows(manifest: Path) -> Manifest:
    return Manifest.read(manifest)


@pytest.fixture(scope="module")
def eager(detector: LoadedDetector) -> Backend:
    return create_backend(detector.model, backend="torch")


def test_scores_are_those_of_the_model_on_the_resized_crops(weights: Path, rows: Manifest) -> None:
    detector = load_detector(weights)
    detector.model.mixed_precision = False
    fp32 = TorchBackend(detector.model, Precision(torch.device("cpu"), None, torch.channels_last, needs_scaler=False))
    spec, store = detector.info.input_spec, ImageStore(rows.root)
    pixels = np.stack(
        [cv2.resize(store.load(p), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA) for p in rows.path.tolist()]
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    with torch.inference_mode():
        logits = detector.model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    found = score_manifest(fp32, spec, rows, batch=7)
    assert (found.shape, found.dtype) == ((60,), np.float32)
    np.testing.assert_allclose(found, logits[:, 1] - logits[:, 0], atol=1e-3)
    assert found.std() > 0.05


def test_scoring_does_not_change_the_mode_of_a_model(detector: LoadedDetector, rows: Manifest) -> None:
    few = rows.take(np.arange(2))
    detector.model.train()
    score_manifest(detector.model, detector.info.input_spec, few)
    assert detector.model.training
    detector.model.eval()
    with open_backend(detector, backend="torch") as backend:
        score_manifest(backend, detector.info.input_spec, few)
    assert not detector.model.training


def test_a_transform_gets_the_stored_crop_and_its_row(detector: LoadedDetector, eager: Backend, rows: Manifest) -> None:
    seen: dict[int, tuple[int, ...]] = {}

    def blackened(image: Image, row: int) -> Image:
        seen[row] = image.shape
        return np.zeros_like(image) if row % 2 else image

    found = score_manifest(eager, detector.info.input_spec, rows, transform=blackened, batch=16)
    plain = score_manifest(eager, detector.info.input_spec, rows)
    assert seen == dict.fromkeys(range(60), (96, 96, 3))
    np.testing.assert_array_equal(found[::2], plain[::2])
    assert len(np.unique(found[1::2])) == 1


def test_unreadable_images_are_nan_with_a_reason(
    detector: LoadedDetector, eager: Backend, rows: Manifest, tmp_path: Path
) -> None:
    few = rows.take(np.arange(4))
    broken = replace(few, path=np.array([*few.path[:2], "shard.tar/none.jpg", "nowhere.jpg"]))
    found = score_images(eager, detector.info.input_spec, broken, measure=True)
    np.testing.assert_array_equal(np.isnan(found.logits), [False, False, True, True])
    assert sorted(found.failures) == [2, 3]
    assert "none.jpg" in found.failures[2]
    assert np.isnan(found.measures.sharpness).tolist() == [False, False, True, True]


def test_an_empty_manifest_gives_no_scores(detector: LoadedDetector, eager: Backend, rows: Manifest) -> None:
    assert score_manifest(eager, detector.info.input_spec, rows.take(np.arange(0))).shape == (0,)


def test_measures_are_those_of_the_stored_crop(detector: LoadedDetector, eager: Backend, rows: Manifest) -> None:
    few = rows.take(np.arange(3))
    found = score_images(
        eager, detector.info.input_spec, few, measure=True, transform=lambda image, row: np.zeros_like(image)
    )
    store = ImageStore(rows.root)
    for row, path in enumerate(few.path.tolist()):
        patch = resized(store.load(path), PATCH_PX, "area")
        assert found.measures.sharpness[row] == pytest.approx(clarity(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)))


def test_progress_counts_up_to_all(detector: LoadedDetector, eager: Backend, rows: Manifest) -> None:
    reported: list[int] = []
    score_images(eager, detector.info.input_spec, rows, batch=25, progress=reported.append)
    assert reported == [25, 50, 60]


def test_a_backend_of_another_size_is_refused(detector: LoadedDetector, eager: Backend, rows: Manifest) -> None:
    with pytest.raises(BackendError, match="64 px, the input spec has 96 px"):
        score_manifest(eager, replace(detector.info.input_spec, size=96), rows)


def test_a_failing_backend_raises(eager: Backend) -> None:
    with pytest.raises(BackendError, match=r"torch-.* failed"):
        infer(eager, np.zeros((3, SIZE_PX, SIZE_PX, 5), np.uint8))
