"""The checkpoint format: bit-exact round trips, atomic pairs, and refusal of anything else."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.calibration import LikelihoodBounds
from models.checkpoint import (
    Calibration,
    CheckpointError,
    CheckpointInfo,
    Thresholds,
    git_revision,
    read_checkpoint,
    read_info,
    read_state,
    save_checkpoint,
    weights_sha256,
)
from models.spec import BoxMargin, InputSpec

INFO = CheckpointInfo(
    architecture="xception",
    config={"backbone": "legacy_xception", "pooling": "gem", "depths": [1, 2], "nested": {"a": None}},
    input_spec=InputSpec(size=299, geometry=BoxMargin(0.2)),
    name="xception-test",
    calibration=Calibration(1.3, -0.2),
    thresholds=Thresholds(0.01, fake=tuple(0.6 + k / 40 for k in range(8)), real=(0.3,) * 8),
    metrics={"auc": 0.91, "loss": 0.4},
    epoch=3,
    step=1200,
    data_manifest_sha256="ab" * 32,
    git_revision="cd" * 20,
)


def small_weights(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"layer.weight": torch.full((3, 2), value), "layer.bias": torch.arange(3.0), "steps": torch.tensor(7)}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        # Bytes, not values: nan must survive too.
        assert raw_bytes(got[name]) == raw_bytes(tensor), name


def raw_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# Round trips


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "best.pth"
    sha256 = save_checkpoint(path, weights=small_weights(), info=INFO)
    loaded = read_checkpoint(path)
    assert_same(loaded.weights, small_weights())
    assert loaded.info == INFO == read_info(path)
    assert loaded.sha256 == sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert names_in(path.parent) == ["best.pth"]


DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int8, torch.uint8, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    whole = torch.randint(0, 256, [2 * size for size in shape], generator=generator, dtype=torch.uint8).to(dtype)
    if shape and draw(st.booleans()):
        return whole.movedim(0, -1)[tuple(slice(None, None, 2) for _ in shape)]  # not contiguous
    return whole[tuple(slice(size) for size in shape)]


@settings(max_examples=60, deadline=None)
@given(weights=st.dictionaries(st.text(min_size=1, max_size=12), tensors(), max_size=6))
def test_any_weights_load_bit_for_bit_and_save_to_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, weights: dict[str, torch.Tensor]
) -> None:
    weights.pop("__metadata__", None)
    folder = tmp_path_factory.mktemp("weights")
    sha256 = save_checkpoint(folder / "a", weights=weights, info=INFO)
    assert_same(read_checkpoint(folder / "a").weights, weights)
    assert save_checkpoint(folder / "b", weights=weights, info=INFO) == sha256


unit = st.floats(0, 1)
infos = st.builds(
    CheckpointInfo,
    architecture=st.text(),
    config=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(unit)),
    input_spec=st.builds(InputSpec, size=st.integers(16, 999)),
    name=st.text(),
    calibration=st.builds(
        Calibration,
        st.floats(1e-3, 1e3),
        st.floats(-50, 50),
        curve=st.sampled_from([(), ((-6.0, -4.0), (0.0, 0.5), (6.0, 3.0))]),
        quality=st.sampled_from([(), ((0.0, 0.0), (0.3, 0.2), (0.8, 1.0))]),
        bounds=st.none()
        | st.builds(LikelihoodBounds, st.floats(1e-3, 1), st.floats(1, 1e4), st.integers(1), st.integers(1)),
    ),
    thresholds=st.none()
    | st.builds(
        lambda fpr, values: Thresholds(fpr, tuple(sorted(values)), (min(values),) * 8),
        st.floats(1e-4, 0.5),
        st.lists(unit, min_size=8, max_size=8),
    ),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    epoch=st.integers(0),
    step=st.integers(0),
    data_manifest_sha256=st.none() | st.text(),
    git_revision=st.none() | st.text(),
    versions=st.dictionaries(st.text(), st.text()),
)


@given(infos)
def test_any_info_survives_json(info: CheckpointInfo) -> None:
    assert CheckpointInfo.from_dict(json.loads(json.dumps(info.to_dict(), allow_nan=False))) == info


def test_tied_tensors_stay_tied_and_are_stored_once(tmp_path: Path) -> None:
    table = torch.nn.Parameter(torch.randn(1000, 8))
    save_checkpoint(tmp_path / "tied", weights={"encoder": table, "decoder": table}, info=INFO)
    loaded = read_checkpoint(tmp_path / "tied").weights
    assert loaded["encoder"] is loaded["decoder"]
    assert torch.equal(loaded["encoder"], table)
    assert (tmp_path / "tied").stat().st_size < 1.5 * table.numel() * 4


def test_views_of_one_storage_are_each_written_whole(tmp_path: Path) -> None:
    whole = torch.arange(12.0)
    weights = {"whole": whole, "square": whole.view(3, 4), "turned": whole.view(3, 4).t(), "end": whole[6:]}
    weights |= {"spread": whole[:1].expand(4), "none": whole[:0]}
    save_checkpoint(tmp_path / "views", weights=weights, info=INFO)
    assert_same(read_checkpoint(tmp_path / "views").weights, weights)


def test_header_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "damaged"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.write_bytes(data)
    assert read_info(path) == INFO


def test_undefined_metrics_come_back_as_nan(tmp_path: Path) -> None:
    metrics = {"auc": math.nan, "loss": math.inf, "eer": 0.25}
    save_checkpoint(tmp_path / "a", weights={}, info=replace(INFO, metrics=metrics))
    got = read_info(tmp_path / "a").metrics
    assert math.isnan(got["auc"])
    assert math.isnan(got["loss"])
    assert got["eer"] == 0.25


# Hash of weights in memory


def test_weights_sha256_depends_on_names_shapes_dtypes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.zeros(6)}
    variants: list[dict[str, torch.Tensor]] = [
        base,
        {"a": torch.zeros(3, 2), "b": torch.zeros(6)},
        {"a": torch.zeros(2, 3), "c": torch.zeros(6)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(6, dtype=torch.int32)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([0, 0, 0, 0, 0, 1.0])},
        {"a": torch.zeros(2, 3)},
    ]
    assert len({weights_sha256(weights) for weights in variants}) == len(variants)


def test_weights_sha256_ignores_layout_and_order() -> None:
    square = torch.arange(6.0).view(2, 3)
    strided = square.t().contiguous().t()
    assert weights_sha256({"a": square, "b": square}) == weights_sha256({"b": strided, "a": strided})


# State


def test_state_loads_with_its_weights(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "epoch": 2, "rng": torch.get_rng_state(), "best": (0.5, "auc")}
    save_checkpoint(path, weights=model.state_dict(), info=INFO, state=state)
    assert names_in(tmp_path) == ["last.pth", "last.state"]
    loaded = read_state(path)
    assert loaded["epoch"] == 2
    assert loaded["best"] == (0.5, "auc")
    assert torch.equal(loaded["rng"], state["rng"])
    optimizer.load_state_dict(loaded["optimizer"])
    moments = loaded["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moments, optimizer.state_dict()["state"][0]["exp_avg"])


def test_names_with_dots_have_states_of_their_own(tmp_path: Path) -> None:
    for epoch in (1, 2):
        path = tmp_path / f"run.e{epoch}"
        save_checkpoint(path, weights=small_weights(), info=replace(INFO, epoch=epoch), state={"epoch": epoch})
    assert [read_state(tmp_path / f"run.e{epoch}")["epoch"] for epoch in (1, 2)] == [1, 2]
    # As versions before wrote it.
    (tmp_path / "run.e2.state").rename(tmp_path / "run.state")
    assert read_state(tmp_path / "run.e2")["epoch"] == 2


def test_a_missing_state_is_reported(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", weights=small_weights(), info=INFO)
    with pytest.raises(CheckpointError, match="it has no training state"):
        read_state(tmp_path / "a.pth")


def test_a_state_of_other_weights_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", weights=small_weights(1), info=INFO, state={"epoch": 1})
    save_checkpoint(tmp_path / "b.pth", weights=small_weights(2), info=INFO, state={"epoch": 2})
    (tmp_path / "a.state").write_bytes((tmp_path / "b.state").read_bytes())
    with pytest.raises(CheckpointError, match=r"a\.state: belongs to other weights than a\.pth"):
        read_state(tmp_path / "a.pth")


def test_weights_saved_again_without_a_state_do_not_keep_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", weights=small_weights(1), info=INFO, state={"epoch": 1})
    save_checkpoint(tmp_path / "a.pth", weights=small_weights(2), info=INFO)
    with pytest.raises(CheckpointError, match="belongs to other weights"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.9])
def test_a_truncated_state_is_refused(tmp_path: Path, keep: float) -> None:
    save_checkpoint(tmp_path / "a.pth", weights=small_weights(), info=INFO, state={"x": torch.zeros(500)})
    data = (tmp_path / "a.state").read_bytes()
    (tmp_path / "a.state").write_bytes(data[: int(keep * len(data)) if keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"a\.state: not a training state"):
        read_state(tmp_path / "a.pth")


# Crashes


class Killed(BaseException):
    """Simulates a power cut: no handler in the code under test may catch it."""


@pytest.mark.parametrize("step", range(8))
def test_a_crash_between_any_two_steps_leaves_a_pair_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    path = tmp_path / "last.pth"
    save_checkpoint(path, weights=small_weights(1), info=INFO, state={"epoch": 1})
    calls = 0
    real: dict[str, Callable[..., Any]] = {"replace": os.replace, "fsync": os.fsync}

    def dying(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > step:
                raise Killed
            return real[name](*arguments)

        return call

    for name in real:
        monkeypatch.setattr(os, name, dying(name))
    with pytest.raises(Killed):
        save_checkpoint(path, weights=small_weights(2), info=INFO, state={"epoch": 2})
    monkeypatch.undo()

    weights = read_checkpoint(path).weights
    epoch = read_state(path)["epoch"]
    assert_same(weights, small_weights(epoch))
    # The next save succeeds.
    save_checkpoint(path, weights=small_weights(3), info=INFO, state={"epoch": 3})
    assert read_state(path)["epoch"] == 3
    assert names_in(tmp_path) == ["last.pth", "last.state"]


@pytest.mark.slow
def test_a_process_killed_at_random_moments_leaves_an_accepted_pair(tmp_path: Path) -> None:
    """A child saves pair after pair and is killed without warning; the remaining files always match."""
    path = tmp_path / "last.pth"
    script = textwrap.dedent(
        """
        import sys, torch
        from models.checkpoint import CheckpointInfo, save_checkpoint
        from models.spec import InputSpec
        info = CheckpointInfo("xception", {}, InputSpec(size=224))
        for epoch in range(1, 100_000):
            weights = {"w": torch.full((20_000,), float(epoch))}
            save_checkpoint(sys.argv[1], weights=weights, info=info, state={"epoch": epoch})
            print(epoch, flush=True)
        """
    )
    for pairs in (1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        ) as child:
            assert child.stdout is not None
            for _ in range(pairs):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        assert read_checkpoint(path).weights["w"][0] == read_state(path)["epoch"]


def test_a_failed_save_keeps_the_old_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, weights=small_weights(), info=INFO, state={"epoch": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for weights, info, state in (
        ({"x": torch.zeros(2, device="meta")}, INFO, None),
        ({"x": torch.zeros(2, 2).to_sparse()}, INFO, None),
        ({"x": torch.zeros(2, dtype=torch.complex128)}, INFO, None),
        (small_weights(), replace(INFO, config={"path": Path()}), None),
        (small_weights(), replace(INFO, config={"rate": math.nan}), None),
        (small_weights(), INFO, {"rng": __import__("numpy").random.RandomState(0)}),
    ):
        with pytest.raises(CheckpointError):
            save_checkpoint(path, weights=weights, info=info, state=state)
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_state_suffix_is_reserved(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"suffix \.state is kept"):
        save_checkpoint(tmp_path / "a.state", weights=small_weights(), info=INFO)


# The small types


GOOD = {"fpr": 0.01, "fake": (0.7,) * 8, "real": (0.3,) * 8}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fpr": 0.0}, "fpr"),
        ({"fpr": 1.0}, "fpr"),
        ({"fpr": math.nan}, "fpr"),
        ({"fake": (0.7,) * 7}, "fake must hold 8"),
        ({"real": (0.3,) * 9}, "real must hold 8"),
        ({"fake": (0.7,) * 7 + (1.1,)}, "fake must hold 8 prob"),
        ({"real": (math.nan,) * 8}, "real must hold 8 prob"),
        ({"real": (0.3,) * 7 + (0.8,)}, "must not be below real"),
        ({"fake": (0.7,) * 7 + (0.6,)}, "must not fall"),
    ],
)
def test_invalid_thresholds_are_refused(change: dict[str, Any], message: str) -> None:
    Thresholds(**GOOD)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        Thresholds(**(GOOD | change))


@pytest.mark.parametrize(("scale", "bias"), [(0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (1.0, math.nan)])
def test_a_calibration_that_reverses_scores_is_refused(scale: float, bias: float) -> None:
    with pytest.raises(ValueError, match="finite scale above 0"):
        Calibration(scale, bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": ((0.5, 0.2), (0.2, 1.0))}, "rise in x"),
        ({"quality": ((0.2, 0.9), (0.5, 0.1))}, "not fall in y"),
        ({"quality": ((0.2, 0.1), (0.5, 1.5))}, "in 0..1"),
        ({"curve": ((0.0, 0.0),)}, "two or more"),
        ({"curve": ((0.0, math.nan), (1.0, 2.0))}, "finite"),
    ],
)
def test_invalid_knots_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration(**change)


@pytest.mark.parametrize("values", [(0.0, 2.0), (1.5, 2.0), (0.5, 0.9), (0.5, math.inf)])
def test_likelihood_bounds_enclose_one(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="enclose 1"):
        LikelihoodBounds(*values, 10, 10)


def test_a_calibration_without_newer_fields_keeps_its_old_format() -> None:
    assert Calibration(1.5, -0.5).to_dict() == {"scale": 1.5, "bias": -0.5}
    assert Calibration.from_dict({"scale": 1.5, "bias": -0.5}) == Calibration(1.5, -0.5)


def test_a_calibration_of_a_later_version_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown fields of the calibration: mood"):
        Calibration.from_dict({"scale": 1.0, "mood": 3})


def test_git_revision_is_a_commit_of_this_tree_or_none() -> None:
    revision = git_revision()
    head = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    if head.returncode == 0 and revision is not None:
        assert revision.removesuffix("-dirty") == head.stdout.strip()
    else:
        assert revision is None
