"""Promote weights while a worker judges: from the command to the verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.zoo import resolve
from pipeline.contracts import Outcome, Verdict
from pipeline.weights.announced import ActiveWeights
from pipeline.weights.arms import is_in_canary
from pipeline.weights.registry import Registry
from tests import media
from tests.conftest import required_service
from tests.e2e.service import Platform, WorkerProcess, copies_of, done_count, until
from tests.e2e.swaps import evaluation_of, metrics_of
from tests.weights import shifted
from trainers.promote import promote

CLIPS = 5


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with required_service():
        platform = Platform(
            tmp_path / "platform",
            options=("--workers", "2"),
            UNMASK_REGISTRY=str(tmp_path / "registry"),
            UNMASK_CACHE=str(tmp_path / "cache"),
            UNMASK_SHADOW_CROPS="4",
            UNMASK_SHADOW_S="1",
        )
        platform.__enter__()
    try:
        yield platform
    finally:
        platform.__exit__()


@pytest.mark.slow
def test_weights_change_while_a_worker_judges(platform: Platform, tmp_path: Path) -> None:
    shas = {}
    for name, by in (("first", 0.25), ("second", 0.5)):
        shas[name] = shifted(resolve("unmask-small"), tmp_path / f"{name}.safetensors", by)

    registry = Registry(platform.environment["UNMASK_REGISTRY"], tmp_path)
    with platform.client() as client:
        evaluation = evaluation_of(shas["first"], tmp_path / "first.json").read_bytes()
        promote(tmp_path / "first.safetensors", evaluation, registry=registry, active=ActiveWeights(client))
    worker = platform.start_worker()
    media.make_clip(tmp_path / "face.mp4", seconds=1)
    clips = list(copies_of([tmp_path / "face.mp4"], CLIPS + 1, tmp_path / "clips"))
    later = clips.pop().rename(tmp_path / "later.mp4")
    until(lambda: worker.ready)
    assert weights(worker) == shas["first"], "a new worker takes the announced weights"
    platform.unmask("submit", str(tmp_path / "clips"))
    until(lambda: platform.tasks() and done_count(platform, sorted(platform.tasks().values())) >= 1)
    made = evaluation_of(shas["second"], tmp_path / "second.json")
    done = platform.unmask("promote", str(tmp_path / "second.safetensors"), "--evaluation", str(made))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"active: second, sha256 {shas['second']}")
    until(lambda: weights(worker) == shas["second"])
    # At least one clip comes after the change.
    platform.unmask("submit", str(later))
    ids = sorted(platform.tasks().values())
    assert len(ids) == CLIPS + 1
    until(lambda: done_count(platform, ids) == len(ids))

    verdicts = [Verdict.model_validate_json(record or b"") for record in platform.stored(ids).values()]
    assert {verdict.outcome for verdict in verdicts} == {Outcome.SCORED}
    named = [verdict.provenance.weights_sha256 for verdict in verdicts]
    assert all(len(each) == 1 for each in named)
    assert {each[0] for each in named} == set(shas.values())
    metrics = metrics_of(worker)
    assert metrics['unmask_swaps_total{result="swapped"}'] == 1
    assert metrics["unmask_engine_failed_crops_total"] == 0
    assert metrics[f'unmask_weights{{model="second",sha256="{shas["second"]}"}}'] == 1

    assert platform.unmask("rollback").stdout == f"active: first, sha256 {shas['first']}\n"
    until(lambda: weights(worker) == shas["first"])
    done = platform.unmask(
        "promote", str(tmp_path / "second.safetensors"), "--evaluation", str(made), "--canary", "50%"
    )
    assert done.stdout.splitlines()[-1] == f"canary of 50.0%: second, sha256 {shas['second']}"
    until(lambda: metrics_of(worker)['unmask_swaps_total{result="canary"}'] == 1)
    media.make_clip(tmp_path / "other.mp4", seconds=1, seed=1)
    list(copies_of([tmp_path / "other.mp4"], CLIPS, tmp_path / "more"))
    platform.unmask("submit", str(tmp_path / "more"))
    more = sorted(set(platform.tasks().values()) - set(ids))
    until(lambda: done_count(platform, more) == len(more))
    for record in platform.stored(more).values():
        verdict = Verdict.model_validate_json(record or b"")
        arm = "second" if is_in_canary(verdict.id, shas["second"], 0.5) else "first"
        assert verdict.provenance.weights_sha256 == [shas[arm]]
    shown = platform.unmask("canary", "status").stdout.splitlines()
    assert sum(int(line.split()[1]) for line in shown if line.startswith(("canary:", "active:"))) == len(more)
    assert platform.unmask("canary", "accept").returncode == 3
    assert platform.unmask("canary", "accept", "--force").stdout.endswith(f"active: second, sha256 {shas['second']}\n")
    until(lambda: weights(worker) == shas["second"])
    # Asked to stop while it waits for live crops for the comparison.
    assert worker.leave() == 0


def weights(worker: WorkerProcess) -> str | None:
    """The weights in use, from `/readyz`."""
    sha256: str | None = json.loads(worker.get("/readyz")[1])["weights"]
    return sha256
