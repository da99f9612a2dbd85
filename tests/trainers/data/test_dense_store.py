from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from trainers.data.dense_landmarks import DenseLandmarker, TaskFileError
from trainers.data.dense_store import DENSE_FILE, MIN_SCORE, DenseLandmarksError, DenseStore, write_dense


def written(folder: Path, paths: list[str], scores: list[float]) -> DenseStore:
    points = np.arange(len(paths) * 478 * 2, dtype=np.float32).reshape(-1, 478, 2) % 224
    write_dense(folder / DENSE_FILE, paths, points, np.array(scores, np.float32), "0" * 64)
    store = DenseStore.next_to(folder)
    assert store is not None
    return store


@settings(deadline=None, max_examples=8)
@given(paths=st.lists(st.text(min_size=1), min_size=1, max_size=12, unique=True))
def test_points_are_found_by_path(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = written(tmp_path_factory.mktemp("dense"), paths, [9.0] * len(paths))
    store = pickle.loads(pickle.dumps(store))
    for i, path in enumerate(paths):
        points = store.points(path)
        assert points is not None
        assert points.shape == (478, 2)
        # Half precision: an eighth of a px below 256.
        assert points[0, 0] == pytest.approx(i * 956 % 224, abs=0.125)
    assert store.points("".join(paths) + "x") is None


@pytest.mark.parametrize(("score", "known"), [(MIN_SCORE + 0.1, True), (MIN_SCORE - 0.1, False), (np.nan, False)])
def test_an_unreliable_mesh_is_unknown(score: float, known: bool, tmp_path: Path) -> None:
    assert (written(tmp_path, ["a.jpg"], [score]).points("a.jpg") is not None) == known


def test_without_a_file_there_is_no_store(tmp_path: Path) -> None:
    assert DenseStore.next_to(tmp_path) is None


def test_an_invalid_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / DENSE_FILE).write_bytes(b"x" * 100)
    with pytest.raises(DenseLandmarksError, match="unmask data landmarks"):
        DenseStore.next_to(tmp_path)
    save_file({"keys": np.zeros(1)}, tmp_path / DENSE_FILE)
    with pytest.raises(DenseLandmarksError, match="expected 'unmask-dense-landmarks-1'"):
        DenseStore.next_to(tmp_path)


def test_only_the_pinned_task_file_is_used(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="cannot be read"):
        DenseLandmarker(tmp_path / "none.task")
    (tmp_path / "other.task").write_bytes(b"PK")
    with pytest.raises(TaskFileError, match=r"expected MediaPipe's face_landmarker_v2_with_blendshapes\.task"):
        DenseLandmarker(tmp_path / "other.task")
