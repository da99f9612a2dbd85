"""Differences: whole checkpoints are restored byte for byte from a small file and a pinned base only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import zoo
from models.architectures import get_model, load_detector
from models.bases import Base, UnknownBaseError, base_of_backbone, find_base, list_bases, register_base, unregister_base
from models.checkpoint import CheckpointError, CheckpointInfo, halved, read_checkpoint, read_info, save_checkpoint
from models.difference import DifferenceError, apply_difference, read_difference, save_difference
from models.local_files import WeightsUnavailableError
from models.spec import InputSpec
from models.zoo import ZooEntry, ZooError

BACKBONE = "test_vit"
INFO = CheckpointInfo(architecture="xception", config={}, input_spec=InputSpec(size=64), name="tiny")


class TinyPackage:
    """A file of weights that a package would carry, read only if it is the pinned one."""

    def __init__(self, path: Path, state: dict[str, torch.Tensor]) -> None:
        self.path = path
        safetensors.torch.save_file(state, path)
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def read(self) -> dict[str, torch.Tensor]:
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise WeightsUnavailableError(f"{self.path} is not the pinned file")
        return dict(safetensors.torch.load(data))


@pytest.fixture
def package(tmp_path: Path) -> TinyPackage:
    torch.manual_seed(0)
    net = get_model("clip_vit", pretrained=False, backbone=BACKBONE, input_size=64).backbone.net
    return TinyPackage(tmp_path / "package.safetensors", net.state_dict())


@pytest.fixture
def base(package: TinyPackage) -> Iterator[Base]:
    yield register_base(Base("tiny-base", BACKBONE, package.sha256, package.read, "pip install tiny"))
    unregister_base("tiny-base")


def train(package: TinyPackage, path: Path, *, fp16: bool) -> Path:
    """A detector over the package's network with its norms and head changed."""
    torch.manual_seed(1)
    model = get_model("clip_vit", pretrained=False, backbone=BACKBONE, input_size=64)
    model.backbone.net.load_state_dict(package.read())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn_like(parameter) * 0.01
    model.save_checkpoint(path, epoch=1, name="tiny-large")
    if fp16:
        whole = read_checkpoint(path)
        save_checkpoint(path, weights={name: halved(tensor) for name, tensor in whole.weights.items()}, info=whole.info)
    return path


@pytest.fixture
def trained(package: TinyPackage, tmp_path: Path) -> Path:
    """Matrices in fp16, as in shipped weights."""
    return train(package, tmp_path / "trained.safetensors", fp16=True)


@pytest.mark.parametrize("fp16", [False, True])
def test_the_whole_checkpoint_is_restored_byte_for_byte(
    base: Base, package: TinyPackage, tmp_path: Path, fp16: bool
) -> None:
    trained = train(package, tmp_path / "trained.safetensors", fp16=fp16)
    small, built = tmp_path / "small", tmp_path / "cache" / "built.safetensors"
    save_difference(trained, base, small)
    assert apply_difference(small, built) == read_checkpoint(trained).sha256
    assert built.read_bytes() == trained.read_bytes()
    stored = safetensors.torch.load(small.read_bytes())
    frozen = {name for name, p in load_detector(trained).model.named_parameters() if not p.requires_grad}
    assert frozen
    assert not frozen & stored.keys()


def test_equal_checkpoints_give_equal_differences(base: Base, trained: Path, tmp_path: Path) -> None:
    first = save_difference(trained, base, tmp_path / "a")
    assert save_difference(trained, base, tmp_path / "b") == first
    assert hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest() == first


def test_the_header_names_the_base(base: Base, trained: Path, tmp_path: Path) -> None:
    save_difference(trained, base, tmp_path / "small")
    found = read_difference(tmp_path / "small")
    assert (found.base_name, found.base_sha256) == (base.name, base.sha256)
    assert found.sha256 == read_checkpoint(trained).sha256
    assert found.info == read_info(trained)


@given(
    values=st.lists(st.floats(width=32), min_size=4, max_size=4),
    changed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_every_bit_is_restored(tmp_path: Path, values: list[float], changed: bool, dtype: torch.dtype) -> None:
    state = {"w": torch.tensor(values), "b": torch.zeros(2)}
    own = state["w"].to(dtype)
    if changed:
        own = -own
    weights = {"backbone.net.w": own, "backbone.net.b": state["b"], "head": torch.ones(3), "other": torch.ones(2, 2)[1]}
    whole = tmp_path / "whole"
    save_checkpoint(whole, weights=weights, info=INFO)
    base = Base("every-bit", "none", "0" * 64, lambda: state, "")
    register_base(base)
    try:
        save_difference(whole, base, tmp_path / "small")
        apply_difference(tmp_path / "small", tmp_path / "built")
    finally:
        unregister_base(base.name)
    assert (tmp_path / "built").read_bytes() == whole.read_bytes()


def test_tied_tensors_are_restored(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    base = Base("tied", "none", "1" * 64, lambda: {"w": shared}, "")
    save_checkpoint(
        tmp_path / "whole", weights={"backbone.net.w": shared, "backbone.net.v": shared, "x": torch.ones(1)}, info=INFO
    )
    register_base(base)
    try:
        save_difference(tmp_path / "whole", base, tmp_path / "small")
        apply_difference(tmp_path / "small", tmp_path / "built")
    finally:
        unregister_base("tied")
    assert (tmp_path / "built").read_bytes() == (tmp_path / "whole").read_bytes()


def test_another_base_is_refused(base: Base, trained: Path, tmp_path: Path) -> None:
    save_difference(trained, base, tmp_path / "small")
    unregister_base(base.name)
    register_base(replace(base, sha256="2" * 64))
    with pytest.raises(DifferenceError, match=f"made from the tiny-base with sha256 {base.sha256}"):
        apply_difference(tmp_path / "small", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_a_changed_file_of_the_package_is_refused(
    base: Base, package: TinyPackage, trained: Path, tmp_path: Path
) -> None:
    save_difference(trained, base, tmp_path / "small")
    package.path.write_bytes(package.path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsUnavailableError, match="not the pinned file"):
        apply_difference(tmp_path / "small", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_a_base_with_wrong_contents_is_detected(base: Base, trained: Path, tmp_path: Path) -> None:
    save_difference(trained, base, tmp_path / "small")
    unregister_base(base.name)
    register_base(replace(base, read=lambda: {name: tensor + 1 for name, tensor in base.read().items()}))
    with pytest.raises(DifferenceError, match="nothing was written"):
        apply_difference(tmp_path / "small", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_an_unknown_base_lists_the_known_ones(base: Base, trained: Path, tmp_path: Path) -> None:
    save_difference(trained, base, tmp_path / "small")
    unregister_base(base.name)
    with pytest.raises(DifferenceError, match=r"no base named 'tiny-base'; available: .*clip-vit-b16"):
        apply_difference(tmp_path / "small", tmp_path / "built")


def test_a_checkpoint_that_shares_nothing_is_refused(base: Base, trained: Path, tmp_path: Path) -> None:
    whole = read_checkpoint(trained)
    save_checkpoint(trained, weights={n: t + 1 for n, t in whole.weights.items()}, info=whole.info)
    with pytest.raises(DifferenceError, match="shares no tensor with tiny-base"):
        save_difference(trained, base, tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_difference_is_not_a_detector_and_a_detector_is_not_a_difference(
    base: Base, trained: Path, tmp_path: Path
) -> None:
    save_difference(trained, base, tmp_path / "small")
    with pytest.raises(CheckpointError, match="unmask models build"):
        load_detector(tmp_path / "small")
    with pytest.raises(DifferenceError, match="a whole checkpoint"):
        apply_difference(trained, tmp_path / "built")


def _drop(values: dict[str, Any]) -> None:
    del values["header"]


def _shrink(values: dict[str, Any]) -> None:
    values["header"] = values["header"].replace('"dtype":"F32"', '"dtype":"F64"', 1)


def _grow(values: dict[str, Any]) -> None:
    header = json.loads(values["header"])
    header["head.linear.bias"]["data_offsets"] = [0, 1 << 50]
    values["header"] = json.dumps(header)


def _rename(values: dict[str, Any]) -> None:
    values["header"] = values["header"].replace("head.linear.bias", "head.linear.bios")


@pytest.mark.parametrize("damage", [_drop, _shrink, _grow, _rename])
def test_a_damaged_difference_is_refused(
    base: Base, trained: Path, tmp_path: Path, damage: Callable[[dict[str, Any]], None]
) -> None:
    small = tmp_path / "small"
    save_difference(trained, base, small)
    with safetensors.safe_open(small, "pt") as opened:
        values = json.loads(opened.metadata()["unmask"])
    damage(values)
    stored = safetensors.torch.load(small.read_bytes())
    small.write_bytes(safetensors.torch.save(stored, {"unmask": json.dumps(values)}))
    with pytest.raises(CheckpointError):
        apply_difference(small, tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_clip_is_a_base_for_its_backbone() -> None:
    assert "clip-vit-b16" in list_bases()
    assert base_of_backbone("vit_base_patch16_clip_quickgelu_224.openai") is find_base("clip-vit-b16")
    with pytest.raises(UnknownBaseError, match="vit_base_patch16_clip_quickgelu_224"):
        base_of_backbone("legacy_xception")
    with pytest.raises(ValueError, match="already registered"):
        register_base(find_base("clip-vit-b16"))


@pytest.fixture
def entry(base: Base, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], ZooEntry]:
    """Named weights that are built from a difference in the package."""
    (tmp_path / "packaged").mkdir()
    save_difference(trained, base, tmp_path / "packaged" / "tiny-large.difference")
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(zoo, "packaged_dir", lambda: tmp_path / "packaged")
    made = ZooEntry(
        name="tiny-large",
        kind="detector",
        uri=trained.as_uri(),
        filename="tiny-large.safetensors",
        sha256=read_checkpoint(trained).sha256,
        size_bytes=trained.stat().st_size,
        licence="MIT",
        card="docs/model-card.md",
        description="made for this test",
        difference="tiny-large.difference",
        install="pip install tiny",
    )
    monkeypatch.setattr(zoo, "list_entries", lambda: (made,))
    return lambda: made


def test_missing_weights_name_both_commands(entry: Callable[[], ZooEntry]) -> None:
    with pytest.raises(ZooError) as error:
        load_detector("tiny-large")
    for part in ("unmask models build tiny-large", "unmask models pull tiny-large", "pip install tiny"):
        assert part in str(error.value)
    assert entry().delivery == "built"


def test_building_and_pulling_give_the_same_file(entry: Callable[[], ZooEntry], tmp_path: Path) -> None:
    built = zoo.build("tiny-large")
    data = built.read_bytes()
    assert load_detector("tiny-large").sha256 == entry().sha256
    built.unlink()
    assert zoo.pull("tiny-large").read_bytes() == data
    assert get_model("clip_vit", pretrained="tiny-large").config.backbone == BACKBONE


def test_building_existing_weights_reads_no_base(entry: Callable[[], ZooEntry], package: TinyPackage) -> None:
    built = zoo.build("tiny-large")
    package.path.unlink()
    assert zoo.build("tiny-large") == built


def test_building_without_the_base_leaves_no_file(entry: Callable[[], ZooEntry], base: Base, tmp_path: Path) -> None:
    unregister_base(base.name)
    with pytest.raises(ZooError, match=r"tiny-large cannot be built: .*no base named"):
        zoo.build("tiny-large")
    assert not (tmp_path / "cache" / "weights" / entry().filename).exists()


def test_unpublished_weights_can_only_be_built(entry: Callable[[], ZooEntry], monkeypatch: pytest.MonkeyPatch) -> None:
    unpublished = replace(entry(), uri="")
    monkeypatch.setattr(zoo, "list_entries", lambda: (unpublished,))
    with pytest.raises(ZooError, match="not published yet: run `unmask models build tiny-large`"):
        zoo.pull("tiny-large")
    with pytest.raises(ZooError, match="models build tiny-large"):
        zoo.resolve("tiny-large")


def test_a_difference_of_other_weights_is_refused(
    entry: Callable[[], ZooEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "list_entries", lambda: (replace(entry(), sha256="3" * 64),))
    with pytest.raises(ZooError, match="reinstall"):
        zoo.build("tiny-large")


def test_weights_without_a_difference_are_not_built() -> None:
    with pytest.raises(ZooError, match="come with the wheel"):
        zoo.build("unmask-small")
    with pytest.raises(ZooError, match="unmask models pull yunet"):
        zoo.build("yunet")
