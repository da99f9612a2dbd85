"""The validation sets of a run, and the metrics that select its best weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.architectures import get_model
from tests.trainers.crops import make_crops
from tests.weights import SMALL_BACKBONE
from trainers.augment.pseudo_fakes import KINDS
from trainers.config import SettingError, TrainConfig, ValidationConfig, from_json, to_json
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.recipes import probe
from trainers.validation import ScoredSet, alarm_threshold, measured, validate, validation_sets
from trainers.validation_sets import BLURRED, DEGRADED, spread, without_actors_of

SIZE_PX = 32
CONFIG = ValidationConfig(rows=8, pseudo_rows=8, degraded_rows=8, video_rows=12, kinds=("self_blend",))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Validation rows of dfdc and ffpp_c23 in turn, the last quarter of the groups as live swaps."""
    rows = Manifest.read(make_crops(tmp_path_factory.mktemp("crops"), train=2, val=20, frames=2))
    live = (rows.split == "val") & (rows.group >= "g014")
    return replace(rows, dataset=np.where(live, "dfl", rows.dataset))


def named(sets: list[ScoredSet]) -> dict[str, ScoredSet]:
    return {scored.name: scored for scored in sets}


def test_the_sets_of_a_run(manifest: Manifest) -> None:
    sets = named(validation_sets(manifest, CONFIG, SIZE_PX))
    assert list(sets) == [
        "clean", "crf35", "half", "pseudo_self_blend", *DEGRADED, "videos", "videos_crf40", "live_videos",
    ]  # fmt: skip
    for name, scored in sets.items():
        assert scored.pixels.shape == (len(scored.label), SIZE_PX, SIZE_PX, 3), name
        assert set(scored.label.tolist()) == {REAL, FAKE}, name
        assert len(scored.label) <= max(CONFIG.rows, CONFIG.video_rows)
    assert [name for name, scored in sets.items() if not scored.selects] == [
        "motion",
        "noise",
        "mosaic",
        "videos_crf40",
    ]
    assert len(sets["videos"].label) > len(np.unique(sets["videos"].video))
    repeated = named(validation_sets(manifest, CONFIG, SIZE_PX))
    assert all((repeated[name].pixels == scored.pixels).all() for name, scored in sets.items())


def test_sets_can_be_smaller_or_left_out(manifest: Manifest) -> None:
    config = replace(CONFIG, pseudo_rows=0, degraded_rows=0, live="absent")
    assert list(named(validation_sets(manifest, config, SIZE_PX))) == [
        "clean",
        "crf35",
        "half",
        "videos",
        "videos_crf40",
    ]
    assert validation_sets(manifest, replace(CONFIG, split="absent"), SIZE_PX) == []


def test_a_kind_that_is_not_trained_on_is_named_unseen(manifest: Manifest) -> None:
    config = replace(CONFIG, kinds=(), degraded_rows=0)
    trained = set(named(validation_sets(manifest, config, SIZE_PX, trained=list(KINDS))))
    held_out = set(named(validation_sets(manifest, config, SIZE_PX, trained=["dfdc"])))
    assert {f"pseudo_{kind}" for kind in ("self_blend",)} <= trained
    assert {f"unseen_{kind}" for kind in ("self_blend",)} == {name for name in held_out if "self_blend" in name}


def test_a_kind_without_its_requirements_is_left_out(manifest: Manifest) -> None:
    lines: list[str] = []
    config = replace(CONFIG, kinds=("rerender", "self_blend"))
    sets = named(validation_sets(manifest, config, SIZE_PX, say=lines.append))
    assert "pseudo_self_blend" in sets
    assert "pseudo_rerender" not in sets
    assert len(lines) == 1
    assert lines[0].startswith("validation without rerender: ")
    assert "unmask data autoencoders" in lines[0]


def test_an_unknown_kind_is_refused(manifest: Manifest) -> None:
    with pytest.raises(SettingError, match="no pseudo-fake kind face_swap; available: self_blend"):
        validation_sets(manifest, replace(CONFIG, kinds=("face_swap",)), SIZE_PX)


def test_people_of_other_splits_are_left_out_if_others_remain(manifest: Manifest) -> None:
    val = manifest.where(split="val", dataset="dfdc")
    groups = sorted(set(val.group.tolist()))
    others = val.take(np.isin(val.group, groups[:3]))
    assert set(without_actors_of(val, others).group.tolist()) == set(groups[3:])
    assert len(without_actors_of(val, val)) == len(val)


def test_an_actor_is_recognised_across_groups(manifest: Manifest) -> None:
    """Groups differ between the splits by design; the person that they show may be the same."""
    val = manifest.where(split="val", dataset="dfdc")
    first, second = sorted(set(val.group.tolist()))[:2]
    named = replace(val, actor=np.where(val.group == first, "a7", ""))
    train = replace(manifest.where(split="train"), actor=np.full(len(manifest.where(split="train")), "a7"))
    kept = set(without_actors_of(named, train).group.tolist())
    assert first not in kept
    assert second in kept


@given(count=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_rows_by_video_are_taken_from_all_videos(count: int) -> None:
    lengths = {"a": 20, "b": 12, "c": 3}
    rows = Manifest.of(
        [
            {
                "path": f"{v}{i}.jpg",
                "label": 0,
                "split": "",
                "group": v,
                "source_video": v,
                "method": "",
                "dataset": "d",
            }
            for v, length in lengths.items()
            for i in range(length)
        ],
        Path(),
    )
    taken = spread(rows, count)
    assert len(taken) == min(count, 35)
    counts = {v: int((taken.source_video == v).sum()) for v in lengths}
    assert all(counts[v] >= min(lengths[v], max(counts.values()) - 1) for v in lengths)


def crops(name: str, labels: list[int], *, measure: str = "auc", selects: bool = True) -> ScoredSet:
    pixels = np.zeros((len(labels), 1, 1, 3), np.uint8)
    return ScoredSet(name, pixels, np.array(labels, np.int8), np.arange(len(labels)), selects, measure)  # type: ignore[arg-type]


def test_false_alarms_are_counted_at_the_clean_threshold() -> None:
    labels = [REAL] * 4 + [FAKE] * 4
    sets = [
        crops("clean", labels),
        crops("blur3", labels, measure="alarms"),
        crops("noise", labels, measure="alarms", selects=False),
    ]
    logits = {
        "clean": np.float32([-3, -2, -1, 0, 1, 2, 3, -4]),
        "blur3": np.float32([-1, 0, 0.5, 5, 5, 5, 5, -5]),
        "noise": np.float32([9, 9, 9, 9, -9, -9, -9, -9]),
    }
    found = measured(sets, logits, fpr=0.01)
    assert found["caught_clean"] == 0.75
    assert (found["alarms_blur3"], found["caught_blur3"]) == (0.5, 0.75)
    assert (found["alarms_noise"], found["caught_noise"]) == (1.0, 0.0)
    assert "blur3" not in found
    assert found["selection"] == pytest.approx((found["clean"] + 0.5) / 2)


def test_blurred_reals_called_fake_lower_the_selection() -> None:
    labels = [REAL] * 50 + [FAKE] * 50
    sets = [crops("clean", labels), *(crops(name, labels, measure="alarms") for name in BLURRED)]
    clean = np.linspace(-5, 5, 100, dtype=np.float32)
    steady = measured(sets, {scored.name: clean for scored in sets})
    misled = measured(sets, {scored.name: clean if scored.name == "clean" else clean + 10 for scored in sets})
    assert steady["selection"] == pytest.approx(1.0)
    assert misled["selection"] == pytest.approx(0.5)
    assert steady["clean"] == misled["clean"] == 1.0


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=300), st.floats(0, 0.5))
def test_at_most_the_given_share_is_above_the_threshold(reals: list[float], fpr: float) -> None:
    scores = np.array(reals)
    threshold = alarm_threshold(scores, fpr)
    assert (scores > threshold).mean() <= fpr
    assert threshold in scores


def test_weights_are_validated(manifest: Manifest) -> None:
    sets = validation_sets(manifest, replace(CONFIG, degraded_rows=4), SIZE_PX)
    torch.manual_seed(0)
    model = get_model("xception", pretrained=False, backbone=SMALL_BACKBONE, input_size=SIZE_PX)
    found = validate(model, sets, torch.device("cpu"), fpr=0.1)
    assert {f"alarms_{name}" for name in DEGRADED} | {f"caught_{name}" for name in DEGRADED} <= set(found)
    assert all(0 <= value <= 1 for value in found.values())
    assert validate(model, [], torch.device("cpu"))["selection"] != found["selection"]


def test_a_config_older_than_these_sets_is_read() -> None:
    stored = json.loads(to_json(probe()))
    stored["validation"] = {"split": "val", "every": 10_000, "rows": 800, "crops": "dfdc", "videos": "ffpp_c23"}
    for name in ("strong", "apart", "platform", "landmark_cutout_share", "degraded_real_share"):
        del stored["data"]["augment"][name]
    assert from_json(TrainConfig, json.dumps(stored)) == probe()
