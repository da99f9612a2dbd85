"""The gate and promotion: registry and Redis are updated, and no concurrent promotion is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import torch
from typer.testing import CliRunner

from models.checkpoint import read_checkpoint, save_checkpoint
from models.zoo import ZooError
from pipeline.cli import build
from pipeline.contracts import ACTIVE_KEY, HISTORY_KEY, arms_key
from pipeline.graphs.format import read_graph
from pipeline.weights.announced import ActiveWeights
from pipeline.weights.canary import Canaries
from pipeline.weights.registry import NotInRegistryError, Registry
from tests.weights import HEAD_BIAS, shifted, small_weights
from trainers.gate import Evaluation, EvaluationError, RefusedError, compare
from trainers.promote import InvalidWeightsError, Trial, promote

MANIFEST = "m" * 64


def evaluation(sha256: str = "a" * 64, auc: float | None = 0.9, **changes: Any) -> bytes:
    """The parts of an `unmask evaluate --json` report that the gate reads."""
    half_width = changes.pop("half_width", 0.02)
    interval = {} if auc is None or half_width is None else {"low": auc - half_width, "high": auc + half_width}
    videos = changes.pop("videos", 30)
    crops = {
        "name": "dfdc",
        "kind": "crops",
        "manifest_sha256": MANIFEST,
        "rows_sha256": "r" * 64,
        "split": "val",
        "half": "report",
        "video": {
            "counts": {"total": 2 * videos, "real": videos, "fake": videos},
            "metrics": {"auc": {"value": auc, "low": None, "high": None, "reason": None, **interval}},
        },
    } | changes
    return json.dumps({"schema": 1, "model": {"weights_sha256": sha256}, "sets": [crops]}).encode()


def gate(candidate: bytes, active: bytes | None) -> str:
    return compare(Evaluation.parse(candidate), None if active is None else Evaluation.parse(active))


def test_a_small_loss_within_the_interval_passes() -> None:
    assert "video AUC 0.8850 (at most 0.9050) on dfdc; active 0.9000" in gate(evaluation(auc=0.885), evaluation())
    assert "no weights were active" in gate(evaluation(auc=0.5), None)
    gate(evaluation(auc=0.95), evaluation())


def test_a_loss_beyond_the_interval_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"worse than the active weights: video AUC 0\.8700 \(at most 0\.8900\)"):
        gate(evaluation(auc=0.87), evaluation())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"manifest_sha256": "n" * 64}, "evaluated on other rows than the active weights: on manifest nnnn"),
        ({"split": "test"}, "on manifest mmmmmmmmmmmmmmmm, split test, report half, expected .* split val"),
        ({"half": "selection"}, "selection half, expected .* report half"),
        ({"rows_sha256": "s" * 64}, "other rows"),
        ({"videos": 29}, "29 real and 29 fake videos got a score, with the active weights 30 and 30"),
        ({"auc": None}, "no AUC over videos"),
        ({"half_width": None}, "no interval"),
        ({"video": None}, "not comparable"),
        ({"kind": "clips"}, "without a manifest of crops"),
    ],
)
def test_evaluations_that_cannot_be_compared_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason):
        gate(evaluation(**changes), evaluation())


def test_the_set_of_the_active_weights_is_found_among_others() -> None:
    several = json.loads(evaluation(auc=0.5, manifest_sha256="n" * 64))
    several["sets"] += json.loads(evaluation())["sets"]
    assert "active 0.9000" in gate(json.dumps(several).encode(), evaluation())


@pytest.mark.parametrize("data", [b"", b"nonsense", b"[]", b"{}", b'{"schema": 2}', b'{"schema": 1, "sets": [1]}'])
def test_an_invalid_evaluation_is_refused(data: bytes) -> None:
    with pytest.raises(EvaluationError):
        Evaluation.parse(data)


@dataclass(frozen=True)
class Shelf:
    """Detectors by the shift of their log-odds, a registry, and a Redis."""

    folder: Path
    registry: Registry
    active: ActiveWeights

    def weights(self, shift: float) -> tuple[Path, str]:
        path = self.folder / f"shifted-{shift}.safetensors"
        return path, shifted(self.folder / "small.safetensors", path, shift)

    def promote(self, shift: float, auc: float = 0.9, **options: Any) -> str:
        path, sha256 = self.weights(shift)
        promote(path, evaluation(sha256, auc), registry=self.registry, active=self.active, **options)
        return sha256

    def now(self) -> str | None:
        found = self.active.read()
        return None if found is None else found.announcement.sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    small_weights(folder / "small.safetensors")
    return folder


@pytest.fixture
def shelf(folder: Path, announcements: redis.Redis, tmp_path: Path) -> Shelf:
    return Shelf(folder, Registry(str(tmp_path / "registry"), tmp_path / "cache"), ActiveWeights(announcements))


def test_the_graph_is_stored_and_announced(shelf: Shelf) -> None:
    sha256 = shelf.promote(0)
    active = shelf.active.read()
    assert active is not None
    announced = active.announcement.graph
    assert announced is not None
    path = shelf.registry.get_graph(announced.sha256, announced.size_bytes, weights_sha256=sha256)
    assert path.stat().st_size == announced.size_bytes
    assert read_graph(path).info.weights_sha256 == sha256


def test_without_openvino_weights_are_announced_without_a_graph(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.promote.find_spec", lambda name: None)
    shelf.promote(0)
    active = shelf.active.read()
    assert active is not None
    assert active.announcement.graph is None


def test_passing_weights_are_stored_and_announced(shelf: Shelf) -> None:
    first = shelf.promote(0)
    second = shelf.promote(1)
    now = shelf.active.read()
    assert now is not None
    found = now.announcement
    assert (found.sha256, found.previous, found.forced) == (second, first, False)
    assert (found.name, found.uri) == ("shifted-1", shelf.registry.uri_of(second))
    assert shelf.registry.get(second).read_bytes() == shelf.weights(1)[0].read_bytes()
    assert Evaluation.parse(shelf.registry.evaluation(second)).weights_sha256 == second


def test_losing_weights_are_refused_and_force_is_recorded(shelf: Shelf) -> None:
    first = shelf.promote(0)
    with pytest.raises(RefusedError, match="worse"):
        shelf.promote(1, 0.5)
    second = shelf.weights(1)[1]
    assert shelf.now() == first
    with pytest.raises(NotInRegistryError):
        shelf.registry.get(second)
    shelf.promote(1, 0.5, force=True)
    now = shelf.active.read()
    assert now is not None
    assert (now.announcement.sha256, now.announcement.forced) == (second, True)
    shelf.promote(2, 0.9, force=True)
    now = shelf.active.read()
    assert now is not None
    assert not now.announcement.forced, "the gate did not refuse it"


def test_an_evaluation_of_other_weights_is_refused(shelf: Shelf) -> None:
    path, sha256 = shelf.weights(0)
    for wrong in (None, evaluation("b" * 64), b"nonsense"):
        with pytest.raises(EvaluationError):
            promote(path, wrong, registry=shelf.registry, active=shelf.active)
    assert shelf.now() is None
    promote(path, evaluation("b" * 64), registry=shelf.registry, active=shelf.active, force=True)
    assert shelf.now() == sha256
    with pytest.raises(NotInRegistryError):
        shelf.registry.evaluation(sha256)
    with pytest.raises(EvaluationError, match="nothing to compare with"):
        shelf.promote(1)


def test_promoting_the_active_weights_renews_their_evaluation(shelf: Shelf, announcements: redis.Redis) -> None:
    path, sha256 = shelf.weights(0)
    shelf.promote(0)
    announced = announcements.get(ACTIVE_KEY)
    other = evaluation(sha256, 0.8, manifest_sha256="n" * 64)
    promoted = promote(path, other, registry=shelf.registry, active=shelf.active)
    assert not promoted.news
    assert announcements.get(ACTIVE_KEY) == announced
    assert shelf.registry.evaluation(sha256) == other
    with pytest.raises(EvaluationError, match="other rows"):
        shelf.promote(1)


def test_a_running_canary_goes_on_and_nothing_that_was_ended_comes_back_by_itself(
    shelf: Shelf, announcements: redis.Redis
) -> None:
    canaries = Canaries(announcements)
    trial = Trial(canaries, 0.1, 0.02)
    with pytest.raises(RefusedError, match="no weights are active"):
        shelf.promote(1, trial=trial)
    old = shelf.promote(0)
    new = shelf.promote(1, trial=trial)
    announced = canaries.read()
    assert (announced.canary.sha256, announced.canary.previous, shelf.now()) == (new, old, old)
    announcements.hset(arms_key(new), "canary:videos", 150)
    shelf.promote(1, trial=trial, unattended=True)
    assert canaries.read() == announced, "the same one goes on"
    assert canaries.arms(announced.canary).canary.videos == 150
    shelf.promote(1, trial=Trial(canaries, 0.2, 0.02))
    assert canaries.read().canary.share == 0.2
    canaries.end(canaries.read(), "an alarm")
    with pytest.raises(RefusedError, match="the canary of these weights was ended: an alarm"):
        shelf.promote(1, trial=trial, unattended=True)
    shelf.promote(1, trial=trial)
    assert canaries.read().canary.sha256 == new, "a person may"
    shelf.promote(1)
    shelf.active.roll_back()
    with pytest.raises(RefusedError, match="these weights were rolled back"):
        shelf.promote(1, unattended=True)
    shelf.promote(1)
    assert shelf.now() == new
    shelf.promote(2, unattended=True)


def test_the_evaluation_of_the_active_weights_may_be_given(shelf: Shelf) -> None:
    old = shelf.promote(0)
    stored = shelf.registry.evaluation(old)
    other = {"manifest_sha256": "n" * 64}
    path, sha256 = shelf.weights(1)
    candidate = evaluation(sha256, 0.9, **other)
    with pytest.raises(EvaluationError, match="other rows"):
        promote(path, candidate, registry=shelf.registry, active=shelf.active)
    given = evaluation(old, 0.9, **other)
    promote(path, candidate, registry=shelf.registry, active=shelf.active, evaluation_of_active=given)
    assert shelf.now() == sha256
    assert shelf.registry.evaluation(old) == stored
    third, third_sha256 = shelf.weights(2)
    with pytest.raises(EvaluationError, match=f"the evaluation is of weights {old}"):
        promote(
            third,
            evaluation(third_sha256, 0.9, **other),
            registry=shelf.registry,
            active=shelf.active,
            evaluation_of_active=given,
        )


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _of_another_architecture(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    save_checkpoint(path, weights=checkpoint.weights, info=replace(checkpoint.info, architecture="two_stream"))


def _not_finite(path: Path) -> None:
    checkpoint = read_checkpoint(path)
    weights = checkpoint.weights | {HEAD_BIAS: torch.tensor([0.0, torch.nan])}
    save_checkpoint(path, weights=weights, info=checkpoint.info)


@pytest.mark.parametrize("spoil", [_truncated, _of_another_architecture, _not_finite, Path.touch])
def test_force_does_not_accept_an_invalid_file(shelf: Shelf, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "spoilt.safetensors"
    if spoil is not Path.touch:
        shifted(shelf.folder / "small.safetensors", path, 1)
    spoil(path)
    with pytest.raises(InvalidWeightsError):
        promote(path, None, registry=shelf.registry, active=shelf.active, force=True)
    assert shelf.now() is None


def test_a_missing_file_is_not_a_refusal(shelf: Shelf) -> None:
    with pytest.raises(ZooError):
        promote("nowhere", None, registry=shelf.registry, active=shelf.active)


def test_concurrent_promotions_all_succeed(shelf: Shelf, announcements: redis.Redis) -> None:
    with ThreadPoolExecutor(4) as pool:
        promoted = list(pool.map(shelf.promote, range(4)))
    chain = [json.loads(raw) for raw in [announcements.get(ACTIVE_KEY), *announcements.lrange(HISTORY_KEY, 0, -1)]]
    assert {each["sha256"] for each in chain} == set(promoted)
    assert [each["previous"] for each in chain] == [each["sha256"] for each in chain[1:]] + [None]


def test_the_command_reports_results_and_exit_codes(shelf: Shelf, redis_url: str, tmp_path: Path) -> None:
    app, runner = build(["promote"]), CliRunner()

    def run(shift: float, auc: float | None, *options: str, redis: str = redis_url) -> tuple[int, str]:
        path, sha256 = shelf.weights(shift)
        (tmp_path / "e.json").write_bytes(evaluation(sha256, auc))
        named = ("--evaluation", str(tmp_path / "e.json")) if auc is not None else ()
        places = ("--registry", shelf.registry.uri, "--redis", redis)
        done = runner.invoke(app, ["promote", str(path), *named, *places, *options])
        return done.exit_code, done.output

    assert run(0, None) == (3, "Error: no evaluation: run `unmask evaluate --json`, and pass its output\n")
    code, said = run(0, 0.9)
    assert (code, said.splitlines()[1]) == (0, f"active: shifted-0, sha256 {shelf.weights(0)[1]}")
    code, said = run(1, 0.5)
    assert (code, said.partition(":")[0]) == (3, "Error")
    code, said = run(1, 0.5, "--force")
    assert (code, said.partition(":")[0]) == (0, "Forced despite")
    assert run(2, 0.9, redis="redis://127.0.0.1:1/0")[0] == 1
    assert runner.invoke(app, ["promote", str(tmp_path / "none"), "--redis", redis_url]).exit_code == 2


def of_videos(probability: list[float]) -> dict[str, Any]:
    """The scores of 60 videos, real and fake in turn, as a report has them."""
    numbers = list(range(len(probability)))
    return {
        "datasets": ["dfdc"],
        "dataset": [0] * len(numbers),
        "video": numbers,
        "group": numbers,
        "label": [number % 2 for number in numbers],
        "probability": probability,
    }


def test_the_gate_compares_over_the_same_videos() -> None:
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    odds = rng.normal(2 * label, 1.0)
    active = evaluation(scores=of_videos((1 / (1 + np.exp(-odds))).tolist()))
    worse = (1 / (1 + np.exp(-odds + 0.5 * label * rng.random(60)))).tolist()
    assert "over the same 30 real and 30 fake videos" in gate(active, active)
    with pytest.raises(RefusedError, match=r"worse than the active weights: .* difference -0\.0"):
        gate(evaluation(scores=of_videos(worse)), active)
    assert "at most" in gate(evaluation(scores=None), active), "evaluations of earlier versions have no scores"


@pytest.mark.parametrize(
    "changes", [{"probability": [0.5] * 59}, {"label": [2] * 60}, {"dataset": [1] * 60}, {"video": None}]
)
def test_damaged_scores_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EvaluationError, match="not what `unmask evaluate"):
        Evaluation.parse(evaluation(scores=of_videos([0.5] * 60) | changes))
