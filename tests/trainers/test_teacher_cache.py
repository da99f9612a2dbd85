"""Stored teacher outputs: equal to the teachers' own, resumed after an interruption, refused on a mismatch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.spec import LandmarkTemplate
from tests.trainers.teaching import make_teacher
from trainers import teacher_cache
from trainers.cli import main
from trainers.data.images import ImageStore
from trainers.data.manifest import Manifest
from trainers.losses.config import DistilConfig, LossConfig
from trainers.preparation import Preparation
from trainers.teacher_cache import TeacherCache, key_of, prepare
from trainers.teachers import TeacherError, Teachers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows(crops: Path) -> Manifest:
    return Manifest.read(crops).where(split="train")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DistilConfig:
    folder = tmp_path_factory.mktemp("teachers")
    paths = [make_teacher(folder / f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
    return DistilConfig(teachers=tuple(map(str, paths)))


@pytest.fixture(scope="module")
def stored(rows: Manifest, config: DistilConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("answers") / "answers.safetensors"
    prepare(rows, config, out, device=CPU, mixed_precision=False)
    return out


def test_stored_outputs_are_those_of_the_teachers(rows: Manifest, config: DistilConfig, stored: Path) -> None:
    cache = TeacherCache.read(stored, config)
    assert sorted(cache.keys) == sorted({key_of(path) for path in rows.path})
    teachers = Teachers(config, None, CPU, mixed_precision=False)
    assert cache.widths == teachers.widths
    image = ImageStore(rows.root).load(str(rows.path[5]))
    answers = teachers(torch.from_numpy(image[None]).permute(0, 3, 1, 2))
    place = int(cache.places(rows)[5])
    torch.testing.assert_close(cache.answers.log_odds[place], answers.log_odds[0], atol=1e-3, rtol=1e-3)
    for own, found in zip(answers.features, cache.answers.features, strict=True):
        torch.testing.assert_close(found[place].float(), own[0], atol=1e-2, rtol=1e-2)


def test_an_interrupted_run_is_continued(
    rows: Manifest, config: DistilConfig, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answers.safetensors"
    prepare(rows.take(np.arange(20)), config, out, device=CPU, mixed_precision=False)
    asked: list[int] = []
    ask = Teachers.__call__

    def counted(self: Teachers, pixels: torch.Tensor) -> teacher_cache.Answers:
        asked.append(len(pixels))
        return ask(self, pixels)

    monkeypatch.setattr(Teachers, "__call__", counted)
    whole = prepare(rows, config, out, device=CPU, mixed_precision=False)
    assert sum(asked) == len(rows) - 20
    expected = TeacherCache.read(stored, config)
    assert set(whole.keys) == set(expected.keys)
    order = [expected.keys.index(key) for key in whole.keys]
    torch.testing.assert_close(whole.answers.log_odds, expected.answers.log_odds[order], atol=1e-4, rtol=1e-4)


def test_a_batch_gets_the_outputs_for_its_stored_images(rows: Manifest, config: DistilConfig, stored: Path) -> None:
    distil = DistilConfig(teachers=config.teachers, cache=str(stored))
    preparation = Preparation(LossConfig(distil=distil), rows, LandmarkTemplate(), CPU, mixed_precision=False)
    assert "cached outputs for 100% of the rows" in preparation.describe()
    cache = TeacherCache.read(stored, config)
    places = cache.places(rows)
    batch = {
        "images": torch.zeros(4, 3, 64, 64, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 0, 1]),
        "row": torch.tensor([3, -1, 7, 8]),
        "certainty": torch.ones(4),
    }
    ready = preparation(batch, np.random.default_rng(0))
    assert ready["teacher_known"].tolist() == [True, False, True, True]
    assert ready["teacher_log_odds"][[0, 2, 3]].tolist() == cache.answers.log_odds[places[[3, 7, 8]]].tolist()
    assert torch.equal(ready["teacher_features_1"][2], cache.answers.features[1][places[7]].float())


def test_outputs_of_other_teachers_or_images_are_refused(
    rows: Manifest, config: DistilConfig, stored: Path, tmp_path: Path
) -> None:
    fewer = DistilConfig(teachers=config.teachers[:1], cache=str(stored))
    with pytest.raises(TeacherError, match="create it again"):
        TeacherCache.read(stored, fewer)
    with pytest.raises(TeacherError, match="calibrated=False"):
        TeacherCache.read(stored, DistilConfig(teachers=config.teachers, calibrated=False))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(stored.read_bytes()[:-10])
    with pytest.raises(TeacherError, match="not a file of teacher outputs"):
        TeacherCache.read(damaged, config)
    with pytest.raises(TeacherError, match="not a file of teacher outputs"):
        TeacherCache.read(tmp_path / "absent.safetensors", config)
    moved = Manifest.of([row | {"path": f"other/{i}.jpg"} for i, row in enumerate(rows._rows(rows.root))], rows.root)
    distil = DistilConfig(teachers=config.teachers, cache=str(stored))
    with pytest.raises(TeacherError, match="no teacher outputs for any image"):
        Preparation(LossConfig(distil=distil), moved, LandmarkTemplate(), CPU, mixed_precision=False)


def test_the_command(crops: Path, config: DistilConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "answers.safetensors"
    teachers = [part for name in config.teachers for part in ("--teacher", name)]
    command = ["distil", *teachers, "--manifest", str(crops), "--device", "cpu", "--out", str(out)]
    assert main(command) == 0
    assert "outputs of 2 teachers for 64 images" in capsys.readouterr().out
    assert len(TeacherCache.read(out, config).keys) == 64
    assert main(["distil", "--teacher", "absent", "--manifest", str(crops), "--out", str(tmp_path / "b")]) == 2
