from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainers.crops import face, forged
from trainers.augment.policy import NO_AUGMENTATION
from trainers.augment.quality import ApartConfig
from trainers.data.kinds import BLENDED, REAL_FACE, REAL_FAKE
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.data.pairs import SELF_BLEND, PairConfig, PairDataset, PairPlan, difference_mask, pair_loader

SHARES = {SELF_BLEND: 0.3, "dfdc": 0.7}


@pytest.fixture(scope="module")
def manifest(crops: Path) -> Manifest:
    return Manifest.read(crops).where(split="train")


def plan(manifest: Manifest, seed: int = 0, **config: object) -> PairPlan:
    return PairPlan(manifest, replace(PairConfig(shares=SHARES), **config), seed)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=20)
@given(first=st.floats(0.01, 5), second=st.floats(0.01, 5))
def test_shares_are_exact_in_each_round(manifest: Manifest, first: float, second: float) -> None:
    pairs = plan(manifest, shares={SELF_BLEND: first, "dfdc": second})
    for start in (0, 3000):
        kinds = Counter(pairs[start + i].fake is None for i in range(1000))
        assert kinds[True] == pytest.approx(1000 * first / (first + second), abs=1)


def test_every_fake_is_drawn_before_one_repeats(manifest: Manifest) -> None:
    pairs = plan(manifest, shares={"dfdc": 1.0})
    fakes = np.flatnonzero(manifest.label == FAKE)
    counts = Counter(pairs[i].fake for i in range(1000))
    assert set(counts) == set(fakes.tolist())
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_fake_is_paired_with_the_real_of_its_frame_or_group(manifest: Manifest) -> None:
    for i in range(200):
        pair = plan(manifest)[i]
        assert manifest.label[pair.real] == REAL
        if pair.fake is not None:
            assert pair.kind == "same_frame"
            assert manifest.pair[pair.fake] == manifest.path[pair.real]
    unpaired = replace(manifest, pair=np.full_like(manifest.pair, ""))
    for i in range(200):
        pair = plan(unpaired)[i]
        if pair.fake is not None:
            assert pair.kind == "same_group"
            assert unpaired.group[pair.fake] == unpaired.group[pair.real]


def test_the_stream_is_a_function_of_seed_and_place(manifest: Manifest) -> None:
    whole = plan(manifest)
    sequence = [whole[i] for i in range(2500)]
    # In any order, in another process, from any place.
    other = pickle.loads(pickle.dumps(plan(manifest)))
    assert [other[i] for i in reversed(range(2500))] == sequence[::-1]
    assert [plan(manifest, seed=1)[i] for i in range(50)] != sequence[:50]


@pytest.mark.parametrize("shares", [{}, {"dfdc": 0.0}, {"celebdf": 1.0}])
def test_invalid_shares_are_refused(manifest: Manifest, shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="share"):
        plan(manifest, shares=shares)


def test_a_pair_has_its_images_labels_and_mask(manifest: Manifest) -> None:
    dataset = PairDataset(plan(manifest, shares={"dfdc": 1}), size_px=64, augmentation=NO_AUGMENTATION)
    item = dataset[3]
    assert item["images"].shape == (2, 64, 64, 3)
    assert item["labels"].tolist() == [REAL, FAKE]
    assert item["masks"].shape == (2, 4, 4)
    assert not item["masks"][0].any()
    assert item["mask_known"].tolist() == [True, True]
    assert item["kind"].tolist() == [REAL_FACE, REAL_FAKE]
    # The forgery is in the middle of the face.
    assert item["masks"][1][1:3, 1:3].mean() > item["masks"][1][:, 0].mean()


def test_rows_are_those_of_the_stored_crops(manifest: Manifest) -> None:
    stored = PairDataset(plan(manifest, shares={"dfdc": 1}, transplant_share=0), size_px=64)
    pair, item = stored.plan[3], stored[3]
    assert item["row"].tolist() == [pair.real, pair.fake]
    # A generated fake has none.
    made = PairDataset(plan(manifest, shares={"dfdc": 1}, transplant_share=1), size_px=64)
    assert made[3]["row"].tolist() == [made.plan[3].real, -1]
    blends = PairDataset(plan(manifest, shares={SELF_BLEND: 1}), size_px=64)
    assert blends[3]["row"].tolist() == [blends.plan[3].real, -1]
    assert blends[3]["kind"].tolist() == [REAL_FACE, BLENDED]


def test_a_real_with_its_degraded_copy_counts_as_two_reals(manifest: Manifest) -> None:
    """For any planned pair at that place, both labels are real and both masks are empty."""
    copies = replace(NO_AUGMENTATION, degraded_real_share=1, apart=ApartConfig(compression_share=0))
    dataset = PairDataset(plan(manifest), size_px=64, augmentation=copies)
    for place in range(6):
        item = dataset[place]
        assert item["labels"].tolist() == [REAL, REAL]
        assert not item["masks"].any()
        assert item["mask_known"].all()
        assert item["kind"].tolist() == [REAL_FACE, REAL_FACE]
        assert item["row"].tolist() == [dataset.plan[place].real] * 2
        assert (item["images"][0] != item["images"][1]).any()
    some = PairDataset(plan(manifest), size_px=64, augmentation=replace(copies, degraded_real_share=0.3))
    labels = np.array([some[place]["labels"] for place in range(60)])
    assert not labels[:, 0].any()
    assert 0.5 < labels[:, 1].mean() < 0.9


def test_reals_and_fakes_can_be_drawn_independently(manifest: Manifest) -> None:
    pairs = [plan(manifest, shares={"dfdc": 1}, paired=False)[i] for i in range(200)]
    assert {pair.kind for pair in pairs} == {"apart"}
    groups = [manifest.group[c.real] == manifest.group[c.fake] for c in pairs if c.fake is not None]
    assert sum(groups) < 60


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_do_not_depend_on_workers_or_on_where_the_run_resumes(manifest: Manifest, workers: int) -> None:
    dataset = PairDataset(plan(manifest), size_px=48)
    whole = list(pair_loader(dataset, batch_size=8, start=0, stop=4, workers=0))
    later = list(pair_loader(dataset, batch_size=8, start=2, stop=4, workers=workers))
    for name in ("images", "labels", "masks", "mask_known"):
        for a, b in zip(whole[2:], later, strict=True):
            assert (a[name] == b[name]).all(), name
    assert whole[0]["images"].shape == (8, 3, 48, 48)


def test_processes_split_a_batch(manifest: Manifest) -> None:
    dataset = PairDataset(plan(manifest), size_px=48)
    whole = next(iter(pair_loader(dataset, batch_size=8, start=1, stop=2, workers=0)))
    parts = [
        next(iter(pair_loader(dataset, batch_size=4, start=1, stop=2, workers=0, rank=rank, world=2)))
        for rank in range(2)
    ]
    for half, part in zip(whole["images"].split(4), parts, strict=True):
        assert (half == part["images"]).all()


def test_a_mask_is_where_a_pair_differs() -> None:
    real = face(4)
    fake = forged(real, 4)
    mask = difference_mask(real, fake)
    assert mask is not None
    assert mask[40:60, 35:60].mean() > 0.8
    assert mask[:8].mean() < 0.1
    assert difference_mask(real, np.roll(real, 30, axis=1)) is None
