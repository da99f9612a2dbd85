"""`unmask data autoencoders` and `unmask data landmarks`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from tests.trainers.crops import make_crops
from trainers.augment.autoencoders import SPECS, load_autoencoders
from trainers.commands.data import app
from trainers.data.dense_store import DenseStore
from trainers.data.manifest import REAL, Manifest

RUNNER = CliRunner()


def run(*arguments: str | Path) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_crops(tmp_path_factory.mktemp("few"), train=2, val=1, frames=1)


def test_autoencoders_are_trained_and_loaded(few: Path, tmp_path: Path) -> None:
    done = run("autoencoders", few, tmp_path / "nets", "--steps", "1")
    assert done.exit_code == 0, done.output
    assert "nearest_96.safetensors: mean error" in done.output
    assert {net.spec for net in load_autoencoders(str(tmp_path / "nets"))} == set(SPECS)


def test_autoencoders_need_reals(few: Path, tmp_path: Path) -> None:
    done = run("autoencoders", few, tmp_path / "nets", "--split", "test")
    assert done.exit_code == 2
    assert "split 'test' has no reals" in done.output


def test_landmarks_need_the_task_file(few: Path, tmp_path: Path) -> None:
    done = run("landmarks", few, "--task", tmp_path / "none.task")
    assert done.exit_code == 2
    assert "cannot be read" in done.output


def test_landmarks_of_the_reals(few: Path) -> None:
    task = os.environ.get("UNMASK_TEST_FACE_TASK")
    if not task:
        pytest.skip("UNMASK_TEST_FACE_TASK does not name MediaPipe's face_landmarker_v2_with_blendshapes.task")
    done = run("landmarks", few, "--task", task)
    assert done.exit_code == 0, done.output
    assert "3 of 3 faces with a reliable mesh" in done.output
    manifest = Manifest.read(few)
    store = DenseStore.next_to(few.parent)
    assert store is not None
    for row, path in enumerate(manifest.path):
        points = store.points(str(path))
        assert (points is not None) == (manifest.label[row] == REAL)
        if points is not None:
            # Corners of the eyes and of the mouth, at their places in the crops; mirrored or not.
            x = np.sort(points[[33, 263, 61, 291], 0])
            assert 5 < x[0] < x[3] < 91
            assert points[[33, 263], 1].mean() < 45 < points[[61, 291], 1].mean() < 80
