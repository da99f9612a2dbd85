"""`unmask retrain` by command: from decisions to a promotion or a refusal, with what it says and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from models.architectures import load_detector
from models.zoo import default_detector
from pipeline.cli import build
from pipeline.contracts import ACTIVE_KEY
from tests.trainers.crops import make_crops
from trainers.data.manifest import FAKE, REAL, Manifest, join
from trainers.loop import LAST
from trainers.retraining.plan import RetrainError, config_of, parts_of
from trainers.runlog import RunLog

QUICK = (
    *("--samples", "64", "--ladder", "none", "--fpr", "0.2", "--calibration-rows", "24", "--backend", "torch"),
    *("--set", "batch_size=8", "--set", "workers=0", "--set", "data.augment.h264_share=0"),
    *("--set", "data.augment.platform.share=0", "--set", "data.augment.apart.h264_share=0"),
)
Retrain = Callable[..., Result]


def decisions_of(base: Path, *, held_out: int) -> Manifest:
    """Crops as `unmask labels export` writes them: without pairs, a person of each video alone in its group."""
    rows = Manifest.read(base)
    _, group = np.unique(rows.group, return_inverse=True)
    video = np.array([f"{name}-p0" for name in rows.source_video])
    return replace(
        rows,
        split=np.where(group < held_out, "test", "train"),
        group=video,
        source_video=video,
        pair=np.full_like(rows.pair, ""),
        dataset=np.full(len(rows), "decisions"),
        method=np.where(rows.label == FAKE, "decided", ""),
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_crops(tmp_path_factory.mktemp("base"), train=8, val=24)


@pytest.fixture(scope="module")
def decisions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decisions")
    found = decisions_of(make_crops(folder, train=20, val=0, pairs=False), held_out=10)
    found.write(folder / "manifest.parquet")
    return folder / "manifest.parquet"


@pytest.fixture(scope="module")
def weights() -> Path:
    return default_detector()


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch, base: Path, decisions: Path) -> Retrain:
    monkeypatch.setattr(RunLog, "draw", lambda log: None)
    app, runner = build(["retrain"]), CliRunner()

    def run(*options: object, manifest: Path | None = None) -> Result:
        named = ("retrain", manifest or decisions, "--replay", base, *options)
        return runner.invoke(app, [str(each) for each in named])

    return run


@pytest.mark.slow
def test_weights_that_are_not_proven_better_are_refused(retrain: Retrain, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = retrain("--weights", weights, "--out", out, *QUICK)
    assert done.exit_code == 3, done.output
    assert "Refused: decisions held out: better" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["passed"] is False
    assert report["images"] == 64
    assert report["data"]["held_out"] == {"crops": 40, "real_videos": 10, "fake_videos": 10}
    assert report["data"]["decided"] == {"crops": 40, "real_videos": 10, "fake_videos": 10}
    assert sum(report["data"]["shares"].values()) == pytest.approx(1)
    names = [check["name"] for check in report["checks"]]
    assert names[:2] == ["decisions held out: better", "base set: not worse by 0.01"]
    assert {"base set, dfdc: not proven worse", "base set, ffpp_c23: not proven worse", "false alarms, clean"} <= set(
        names
    )
    candidate = load_detector(out / "candidate.safetensors")
    assert candidate.info.name.startswith("unmask-small-r")
    assert candidate.info.thresholds is not None
    assert candidate.sha256 == report["candidate"]["weights_sha256"] != report["active"]["weights_sha256"]

    (out / "report.json").unlink()
    seen = {path: path.stat().st_mtime_ns for path in (out / "candidate.safetensors", out / "run" / LAST)}
    again = retrain("--weights", weights, "--out", out, *QUICK)
    assert again.exit_code == 3
    assert (out / "candidate.safetensors").stat().st_mtime_ns == seen[out / "candidate.safetensors"]
    found = json.loads((out / "report.json").read_text())
    assert found == report
    # The new weights have nothing more to learn there.
    learned = retrain("--weights", out / "candidate.safetensors", "--out", tmp_path / "again", *QUICK)
    assert (learned.exit_code, "learned from these decisions already" in learned.output) == (3, True)
    other = retrain("--weights", weights, "--out", out, *QUICK, "--seed", 1)
    assert (other.exit_code, "holds a retraining of other data" in other.output) == (2, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: replace(rows, split=np.full(len(rows), "test")), "the decisions have no rows of the split train"),
        (lambda rows: replace(rows, dataset=np.full(len(rows), "dfdc")), "is in both manifests"),
        (lambda rows: replace(rows, group=np.full(len(rows), "one")), "is in two splits"),
        (lambda rows: replace(rows, dataset=np.full(len(rows), "self_blend")), "named like a kind of pseudo-fakes"),
        (lambda rows: replace(rows, source_video=np.full(len(rows), "one")), "the video 'one' of the decisions"),
        (lambda rows: join([rows, replace(rows, path=np.full(len(rows), "gone.jpg"))], rows.root), "gone.jpg"),
    ],
)
def test_decisions_that_cannot_be_learned_from_are_refused(
    retrain: Retrain,
    decisions: Path,
    weights: Path,
    tmp_path: Path,
    change: Callable[[Manifest], Manifest],
    message: str,
) -> None:
    changed = change(Manifest.read(decisions))
    changed.write(tmp_path / "changed.parquet")
    done = retrain("--weights", weights, "--out", tmp_path / "run", manifest=tmp_path / "changed.parquet")
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_without_announced_weights_there_is_nothing_to_start_from(
    retrain: Retrain, announcements: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    places = ("--redis", redis_url, "--registry", tmp_path)
    done = retrain(*places)
    assert (done.exit_code, "no weights are announced" in done.output) == (2, True)
    assert retrain("--redis", "redis://127.0.0.1:1/0", "--registry", tmp_path).exit_code == 1
    assert announcements.get(ACTIVE_KEY) is None


def test_the_shares_state_what_is_trained_on(base: Path, decisions: Path, weights: Path) -> None:
    info = load_detector(weights).info
    old, new = Manifest.read(base), Manifest.read(decisions)

    def shares(rows: Manifest, samples: int) -> tuple[dict[str, float], dict[str, float]]:
        parts = parts_of(old, rows, Path("/"))
        pairs = config_of(parts, info, samples=samples, replay_share=0.7, seed=0).data.pairs
        assert sum(pairs.shares.values()) == pytest.approx(1)
        assert sum(pairs.bases.values()) == pytest.approx(1)
        return dict(pairs.shares), dict(pairs.bases)

    found, bases = shares(new, 640)
    assert found["decisions"] == pytest.approx(0.3 * 0.7)
    assert set(bases) == {"dfdc", "decisions"}
    assert "rerender" not in found, "it needs autoencoders"
    assert shares(new, 64_000)[0]["decisions"] < 0.01, "few decisions are not repeated hundreds of times"
    only = new.take((new.label == REAL) | (new.split == "test"))
    assert "decisions" not in shares(only, 640)[0]
    assert shares(only, 640)[1]["decisions"] > 0
    only = new.take((new.label == FAKE) | (new.split == "test"))
    assert shares(only, 640)[0]["decisions"] == pytest.approx(0.3)
    assert "decisions" not in shares(only, 640)[1]
    with pytest.raises(RetrainError, match="between 0 and 1"):
        config_of(parts_of(old, new, Path("/")), info, samples=640, replay_share=1, seed=0)
