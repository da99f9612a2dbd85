"""Pairs with pseudo-fakes of all kinds, balanced by source, with an unchanged stream for older configs."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.trainers.crops import face
from trainers.augment.autoencoders import Autoencoder, AutoencodersMissingError, AutoencoderSpec, save_autoencoder
from trainers.augment.blend_config import BlendConfig, RerenderConfig
from trainers.augment.outline import template_landmarks
from trainers.augment.policy import NO_AUGMENTATION
from trainers.augment.pseudo_fakes import KINDS, WITH_DONOR
from trainers.config import TrainConfig, from_json, to_json, with_settings
from trainers.data.dense_store import DENSE_FILE, write_dense
from trainers.data.manifest import REAL, Manifest
from trainers.data.pairs import PairConfig, PairDataset, PairPlan, pair_loader
from trainers.recipes import find_recipe


@pytest.fixture(scope="module")
def manifest(crops: Path) -> Manifest:
    return Manifest.read(crops).where(split="train")


@pytest.fixture(scope="module")
def blend(tmp_path_factory: pytest.TempPathFactory) -> BlendConfig:
    folder = tmp_path_factory.mktemp("pair_autoencoders")
    save_autoencoder(Autoencoder(AutoencoderSpec("a", "nearest", 32, 2, 8, "l1", 8)).eval(), folder)
    return BlendConfig(rerender=RerenderConfig(folder=str(folder)))


def plan(manifest: Manifest, shares: dict[str, float], seed: int = 0, **config: object) -> PairPlan:
    return PairPlan(manifest, replace(PairConfig(shares=shares), **config), seed)  # type: ignore[arg-type]


def several(manifest: Manifest) -> Manifest:
    """The same rows as three datasets: groups of 1 or 2 reals, and one dataset of a single group."""
    dataset = np.where(manifest.group < "g004", "ffhq", manifest.dataset)
    dataset = np.where(manifest.group == "g015", "lonely", dataset)
    odd = np.array([group[-1] in "13579" for group in manifest.group])
    first = np.array(["_0_" in path for path in manifest.path])
    return replace(manifest, dataset=dataset).take(~odd | first)


def test_the_stream_of_older_configs_has_not_changed(manifest: Manifest) -> None:
    """Runs started before the other kinds existed continue with the same pairs."""
    pairs = plan(manifest, {"self_blend": 0.3, "dfdc": 0.7})
    stream = [(pair.kind, pair.real, pair.fake) for pair in (pairs[i] for i in range(2500))]
    assert stream[:3] == [("same_frame", 26, 27), ("same_frame", 8, 9), ("self_blend", 52, None)]
    assert hashlib.sha256(repr(stream).encode()).hexdigest()[:16] == "7c5f64ccb3ddb06c"


def test_every_kind_is_drawn_by_its_share(manifest: Manifest) -> None:
    shares = {kind: 0.1 * (i + 1) for i, kind in enumerate(KINDS)}
    pairs = plan(manifest, {**shares, "dfdc": 0.5})
    counts = Counter(pairs[i].kind for i in range(1000))
    for kind, share in shares.items():
        assert counts[kind] == pytest.approx(1000 * share / 2.0, abs=1)
    assert pairs.kinds == set(KINDS)


def test_donors_are_other_people_of_the_same_dataset_and_real(manifest: Manifest) -> None:
    rows = several(manifest)
    pairs = plan(rows, dict.fromkeys(KINDS, 1.0))
    for pair in (pairs[i] for i in range(600)):
        assert (pair.donor is not None) == (pair.kind in WITH_DONOR)
        if pair.donor is not None:
            assert rows.label[pair.donor] == REAL
            assert rows.group[pair.donor] != rows.group[pair.real]
            same = rows.dataset[pair.donor] == rows.dataset[pair.real]
            assert same == (rows.dataset[pair.real] != "lonely")


def test_the_donor_with_the_nearest_pose_is_used(manifest: Manifest) -> None:
    landmarks = np.repeat(template_landmarks(96)[None], len(manifest), axis=0)
    turned = np.array([int(group[1:]) % 2 == 1 for group in manifest.group])
    landmarks[turned, 2] += np.array([15, 0], np.float32)
    pairs = plan(replace(manifest, landmarks=landmarks.astype(np.float32)), {"mesh_swap": 1.0}, donors=12)
    same = [turned[c.donor] == turned[c.real] for c in (pairs[i] for i in range(200)) if c.donor is not None]
    assert np.mean(same) > 0.95


def test_one_person_alone_has_no_donor(manifest: Manifest) -> None:
    alone = manifest.where(group="g001")
    with pytest.raises(ValueError, match="at least two groups"):
        plan(alone, {"mesh_swap": 1.0})
    assert plan(alone, {"self_blend": 1.0})[0].donor is None


def test_balance_by_group_draws_each_source_equally(manifest: Manifest) -> None:
    rows = several(manifest)
    by_image, by_group = (
        Counter(str(rows.group[pairs[i].real]) for i in range(1000))
        for pairs in (plan(rows, {"self_blend": 1.0}, balance=how) for how in ("image", "group"))
    )
    assert max(by_group.values()) - min(by_group.values()) <= 1
    assert max(by_image.values()) - min(by_image.values()) > 10
    # Within a group, each image has its turn.
    pairs = plan(rows, {"self_blend": 1.0}, balance="group")
    images = Counter(pairs[i].real for i in range(1000))
    assert set(images) == set(np.flatnonzero(rows.label == REAL).tolist())
    for group in set(rows.group):
        of_group = [images[i] for i in np.flatnonzero((rows.group == group) & (rows.label == REAL))]
        assert max(of_group) - min(of_group) <= 1


def test_bases_set_the_datasets_of_the_reals(manifest: Manifest) -> None:
    rows = several(manifest)
    pairs = plan(rows, {"self_blend": 0.25, "mesh_swap": 0.25, "dfdc": 0.5}, bases={"dfdc": 3.0, "ffhq": 1.0})
    counts = Counter(
        (pair.kind, str(rows.dataset[pair.real])) for pair in (pairs[i] for i in range(1000)) if pair.fake is None
    )
    for kind in ("self_blend", "mesh_swap"):
        for base, part in (("dfdc", 0.75), ("ffhq", 0.25)):
            assert counts[kind, base] == pytest.approx(250 * part, abs=1)
    assert sum(counts.values()) == 500


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bases": {"utkface": 1.0}}, "share of 'self_blend of utkface': .* its datasets are: dfdc; kinds of"),
        ({"donors": 0}, "donors must be at least 1"),
    ],
)
def test_invalid_settings_are_refused(manifest: Manifest, config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(manifest, {"self_blend": 1.0}, **config)


def test_the_stream_stays_a_function_of_seed_and_place(manifest: Manifest) -> None:
    rows = several(manifest)
    settings = {"balance": "group", "bases": {"dfdc": 0.6, "ffhq": 0.4}}
    shares = {**dict.fromkeys(KINDS, 1.0), "dfdc": 2.0}
    whole = plan(rows, shares, **settings)
    sequence = [whole[i] for i in range(1500)]
    other = pickle.loads(pickle.dumps(plan(rows, shares, **settings)))
    assert [other[i] for i in reversed(range(1500))] == sequence[::-1]
    assert [plan(rows, shares, seed=1, **settings)[i] for i in range(50)] != sequence[:50]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_all_kinds_do_not_depend_on_workers(manifest: Manifest, blend: BlendConfig, workers: int) -> None:
    dataset = PairDataset(plan(manifest, dict.fromkeys(KINDS, 1.0), balance="group"), size_px=48, blend=blend)
    whole = list(pair_loader(dataset, batch_size=10, start=0, stop=4, workers=0))
    later = list(pair_loader(dataset, batch_size=10, start=2, stop=4, workers=workers))
    for name in ("images", "labels", "masks", "mask_known"):
        for a, b in zip(whole[2:], later, strict=True):
            assert (a[name] == b[name]).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_pair_of_each_kind_has_a_mask(manifest: Manifest, blend: BlendConfig, kind: str) -> None:
    dataset = PairDataset(plan(manifest, {kind: 1.0}), size_px=64, augmentation=NO_AUGMENTATION, blend=blend)
    for place in range(4):
        item = dataset[place]
        assert item["mask_known"].all()
        assert not item["masks"][0].any()
        assert item["masks"][1].max() > 0.05
        assert (item["images"][0] != item["images"][1]).any()


def test_rerender_without_autoencoders_is_refused_at_the_start(manifest: Manifest) -> None:
    with pytest.raises(AutoencodersMissingError, match=r"data\.blend\.rerender\.folder"):
        PairDataset(plan(manifest, {"rerender": 1.0}), size_px=48)


def test_dense_landmarks_next_to_the_manifest_are_used(manifest: Manifest, tmp_path: Path) -> None:
    """They change the blends; when turned off, the result is as without them."""
    here = replace(
        manifest, root=tmp_path, path=np.array([f"{i}.png" for i in range(len(manifest))]),
        pair=np.full(len(manifest), "")
    )  # fmt: skip
    for i in range(len(here)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), face(i))
    pairs = plan(here, {"mesh_swap": 1.0})
    without = PairDataset(pairs, size_px=48, augmentation=NO_AUGMENTATION)[0]
    points = np.random.default_rng(0).uniform(20, 76, (len(here), 478, 2)).astype(np.float32)
    write_dense(tmp_path / DENSE_FILE, list(here.path), points, np.full(len(here), 9.0, np.float32), "0" * 64)
    used = PairDataset(pairs, size_px=48, augmentation=NO_AUGMENTATION)[0]
    off = PairDataset(pairs, size_px=48, augmentation=NO_AUGMENTATION, blend=BlendConfig(dense=False))[0]
    assert (used["images"] != without["images"]).any()
    assert (off["images"] == without["images"]).all()


def test_kinds_are_settings_of_a_run() -> None:
    config = with_settings(
        find_recipe("probe"),
        [
            "data.pairs.shares.mesh_swap=0.1",
            "data.pairs.bases.utkface=0.5",
            "data.pairs.balance=group",
            "data.blend.rerender.folder=/data/autoencoders",
            "data.blend.mesh_swap.poisson_share=1",
            "data.blend.mask_shares=(0, 1, 0, 0, 0, 0)",
        ],
    )
    assert config.data.pairs.shares["mesh_swap"] == 0.1
    assert config.data.blend.mesh_swap.poisson_share == 1.0
    assert from_json(TrainConfig, to_json(config)) == config


def test_a_config_without_kinds_is_read() -> None:
    text = to_json(find_recipe("probe"))
    old = json.loads(text)
    for name in ("balance", "bases", "donors"):
        del old["data"]["pairs"][name]
    for name in ("mask_shares", "dense", "mesh_swap", "reenactment", "rerender", "frequency"):
        del old["data"]["blend"][name]
    assert from_json(TrainConfig, json.dumps(old)) == find_recipe("probe")
