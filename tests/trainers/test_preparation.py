"""Preparation of batches for the losses: teachers, degraded copies, mixes, and their independence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from models.architectures import load_detector
from models.spec import BoxMargin, InputSpec, LandmarkTemplate
from models.zoo import ZooError
from tests.trainers.teaching import make_teacher
from trainers.data.manifest import Manifest
from trainers.data.pairs import SELF_BLEND, PairConfig, PairDataset, PairPlan, pair_loader
from trainers.losses.config import ConsistencyConfig, DistilConfig, LossConfig, MixupConfig, OrderedConfig
from trainers.preparation import Preparation
from trainers.teachers import TeacherError
from trainers.validation import score

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def manifest(crops: Path) -> Manifest:
    return Manifest.read(crops).where(split="train")


@pytest.fixture(scope="module")
def batch(manifest: Manifest) -> dict[str, Tensor]:
    plan = PairPlan(manifest, PairConfig(shares={SELF_BLEND: 0.3, "dfdc": 0.7}), 0)
    return next(iter(pair_loader(PairDataset(plan, size_px=64), batch_size=8, start=0, stop=1, workers=0)))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("teachers")
    return (
        str(make_teacher(folder / "a.safetensors", seed=1)),
        str(make_teacher(folder / "b.safetensors", seed=2, input_size=64, scale=0.5, bias=1.0)),
    )


def prepare(config: LossConfig, manifest: Manifest, batch: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    preparation = Preparation(config, manifest, LandmarkTemplate(), CPU, mixed_precision=False)
    return preparation(batch, np.random.default_rng(seed))


def test_with_everything_off_the_batch_does_not_change(manifest: Manifest, batch: dict[str, Tensor]) -> None:
    ready = prepare(LossConfig(), manifest, batch)
    assert ready.keys() == batch.keys()
    assert all(torch.equal(ready[name], batch[name]) for name in batch)


def test_two_teachers_give_the_mean_of_their_calibrated_log_odds(
    manifest: Manifest, batch: dict[str, Tensor], teachers: tuple[str, str]
) -> None:
    ready = prepare(LossConfig(distil=DistilConfig(teachers=teachers)), manifest, batch)
    assert ready["teacher_known"].all()
    first, second = (load_detector(name) for name in teachers)
    larger = torch.nn.functional.interpolate(batch["images"].float(), size=(96, 96), mode="bilinear", antialias=True)
    own = torch.from_numpy(score(second.model, batch["images"].permute(0, 2, 3, 1).numpy(), CPU))
    with torch.inference_mode():
        logits = first.model(
            (larger / 255 - torch.tensor(first.model.input_spec.mean)[:, None, None])
            / torch.tensor(first.model.input_spec.std)[:, None, None]
        )
    expected = (logits[:, 1] - logits[:, 0] + 0.5 * own + 1.0) / 2
    torch.testing.assert_close(ready["teacher_log_odds"], expected, atol=1e-3, rtol=1e-3)
    assert float(ready["teacher_log_odds"].std()) > 0.01
    assert ready["teacher_features_0"].shape == (8, first.model.num_features)
    raw = prepare(LossConfig(distil=DistilConfig(teachers=teachers, calibrated=False)), manifest, batch)
    torch.testing.assert_close(raw["teacher_log_odds"], (logits[:, 1] - logits[:, 0] + own) / 2, atol=1e-3, rtol=1e-3)


def test_teachers_score_a_share_of_the_batch(
    manifest: Manifest, batch: dict[str, Tensor], teachers: tuple[str, str]
) -> None:
    whole = prepare(LossConfig(distil=DistilConfig(teachers=teachers)), manifest, batch)
    part = prepare(LossConfig(distil=DistilConfig(teachers=teachers, share=0.25)), manifest, batch)
    known = part["teacher_known"]
    assert int(known.sum()) == 2
    torch.testing.assert_close(part["teacher_log_odds"][known], whole["teacher_log_odds"][known])
    assert not part["teacher_features_1"][~known].any()
    other = prepare(LossConfig(distil=DistilConfig(teachers=teachers, share=0.25)), manifest, batch, seed=1)
    assert not torch.equal(other["teacher_known"], known)


def test_teachers_see_the_mix_that_the_student_sees(
    manifest: Manifest, batch: dict[str, Tensor], teachers: tuple[str, str]
) -> None:
    distil = DistilConfig(teachers=teachers)
    mixed = prepare(LossConfig(mixup=MixupConfig(share=1.0), distil=distil), manifest, batch)
    plain = prepare(LossConfig(distil=distil), manifest, batch | {"images": mixed["images"]})
    assert mixed["mixed"].any()
    torch.testing.assert_close(mixed["teacher_log_odds"], plain["teacher_log_odds"])


def test_images_without_a_label_keep_their_teacher(
    manifest: Manifest, batch: dict[str, Tensor], teachers: tuple[str, str]
) -> None:
    unlabelled = batch | {"labels": torch.full((8,), -1), "kind": torch.full((8,), -1)}
    config = LossConfig(ordered=OrderedConfig(weight=1), distil=DistilConfig(teachers=teachers))
    ready = prepare(config, manifest, unlabelled)
    assert not ready["label_known"].any()
    assert not ready["kind_known"].any()
    assert ready["teacher_known"].all()


def test_draws_for_one_loss_do_not_depend_on_another(manifest: Manifest, batch: dict[str, Tensor]) -> None:
    consistency = ConsistencyConfig(weight=1, share=0.5)
    alone = prepare(LossConfig(consistency=consistency), manifest, batch)
    assert alone["degraded"].shape == (4, 3, 64, 64)
    both = prepare(LossConfig(consistency=consistency, ordered=OrderedConfig(weight=1)), manifest, batch)
    assert torch.equal(alone["degraded"], both["degraded"])
    with_mixes = prepare(LossConfig(consistency=consistency, mixup=MixupConfig(share=1)), manifest, batch)
    assert torch.equal(alone["degraded_of"], with_mixes["degraded_of"])


def test_a_teacher_with_other_crops_or_without_a_file_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    path = make_teacher(tmp_path / "teacher.safetensors")
    model = load_detector(path).model
    model.input_spec = InputSpec(96, model.input_spec.mean, model.input_spec.std, BoxMargin())
    model.save_checkpoint(tmp_path / "box.safetensors", epoch=1)
    config = LossConfig(distil=DistilConfig(teachers=(str(tmp_path / "box.safetensors"),)))
    with pytest.raises(TeacherError, match="needs crops by BoxMargin"):
        Preparation(config, manifest, LandmarkTemplate(), CPU, mixed_precision=False)
    with pytest.raises(ZooError, match="no such file"):
        Preparation(
            replace(config, distil=DistilConfig(teachers=("absent.safetensors",))),
            manifest,
            LandmarkTemplate(),
            CPU,
            mixed_precision=False,
        )
