"""Foreign and damaged files are refused with a reason, and no code in them runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    read_checkpoint,
    read_info,
    read_state,
    save_checkpoint,
)
from tests.models.test_checkpoint import INFO, small_weights


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    fuse, path = tmp_path / "it-went-off", tmp_path / "a.pth"
    save_checkpoint(path, weights=small_weights(), info=INFO, state={"epoch": 1})
    state = tmp_path / "a.state"
    sha256 = read_checkpoint(path).sha256
    for bomb in (Bomb(fuse), {"weights_sha256": sha256, "state": {"x": Bomb(fuse)}}):
        zipped = io.BytesIO()
        torch.save(bomb, zipped)
        for data in (pickle.dumps(bomb), pickle.dumps(bomb, protocol=0), zipped.getvalue()):
            state.write_bytes(data)
            with pytest.raises(CheckpointError):
                read_state(path)
            foreign = tmp_path / "foreign.pth"
            foreign.write_bytes(data)
            for read in (read_checkpoint, read_info, read_state):
                with pytest.raises(CheckpointError, match="not an Unmask checkpoint"):
                    read(foreign)
    assert not fuse.exists()
    pickle.loads(pickle.dumps(Bomb(fuse)))
    assert fuse.exists(), "the bomb must be a real one"


def torch_saved() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": small_weights()}, file)
    return file.getvalue()


def zip_of_text() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    return file.getvalue()


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "text": (b"plain text of more than a few bytes", "a text file, not an Unmask checkpoint"),
    "text with a brace": (b"12345678{}", "a text file"),
    "pickle": (pickle.dumps({"state_dict": 1}), "a Python pickle"),
    "torch.save": (torch_saved(), "a zip archive, such as torch.save writes"),
    "zip": (zip_of_text(), "a zip archive"),
    "random": (bytes(range(255, 0, -1)) * 9, "a file of an unknown kind"),
    "three bytes": (b"\x00\x01\xff", "a file of an unknown kind"),
    "bare safetensors": (safetensors.torch.save(small_weights()), "bare safetensors weights"),
    "other metadata": (safetensors.torch.save(small_weights(), {"format": "pt"}), "bare safetensors weights"),
    "header is a list": ((2).to_bytes(8, "little") + b"[]", "a file of an unknown kind"),
    "header is no JSON": ((2).to_bytes(8, "little") + b"{]", "damaged header"),
    "header is deep": ((200_000).to_bytes(8, "little") + b'{"a":' * 40_000, "damaged header"),
    "entry without offsets": ((9).to_bytes(8, "little") + b'{"a": {}}', "damaged header"),
    "entry is a number": ((8).to_bytes(8, "little") + b'{"a": 1}', "damaged header"),
    "info is no JSON": (safetensors.torch.save({}, {"unmask": "{"}), "damaged header"),
    "info is a list": (safetensors.torch.save({}, {"unmask": "[]"}), "names no format version"),
    "info is empty": (safetensors.torch.save({}, {"unmask": "{}"}), "names no format version"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_message_names_the_kind_of_foreign_file(tmp_path: Path, kind: str) -> None:
    data, message = FOREIGN[kind]
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    for read in (read_checkpoint, read_info, read_state):
        with pytest.raises(CheckpointError, match=message) as error:
            read(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["missing.pth", "."])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    for read in (read_checkpoint, read_info, read_state):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read(tmp_path / name)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    data = path.read_bytes()
    for length in (*range(0, len(data) - 40, 97), *range(len(data) - 40, len(data))):
        path.write_bytes(data[:length])
        for read in (read_checkpoint, read_info):
            with pytest.raises(CheckpointError):
                read(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_info(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """For any changed bytes the result is a checkpoint or a CheckpointError, nothing else."""
    path = tmp_path_factory.mktemp("damage") / "a"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        assert read_checkpoint(path).sha256 == hashlib.sha256(raw).hexdigest()


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same checkpoint with another header."""
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["unmask"])
    change(header)
    path.write_bytes(safetensors.torch.save(read_checkpoint(path).weights, {"unmask": json.dumps(header)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, "update Unmask"),
        ({"format_version": "1"}, "names no format version"),
        ({"input_spec_hash": "0" * 16}, "the input spec has hash"),
        ({"input_spec": {**INFO.input_spec.to_dict(), "size": 224}}, "the input spec has hash"),
        ({"input_spec": {"size": 224}}, "not an input spec"),
        ({"architecture": 3}, "architecture has the wrong type"),
        ({"config": "x"}, "config has the wrong type"),
        ({"metrics": {"auc": [1]}}, "wrong type"),
        ({"calibration": {"scale": -1, "bias": 0}}, "scale above 0"),
        ({"calibration": {"slope": 1}}, "wrong type"),
        ({"thresholds": {"fpr": 0.1, "fake": [0.5], "real": [0.5]}}, "must hold 8"),
        ({"thresholds": {"fpr": 0.1, "fake": ["a"] * 8, "real": ["b"] * 8}}, "wrong type"),
        ({"thresholds": {"fpr": 0.1}}, "'fake' is missing"),
        ({"tied": {"a": "nowhere"}}, "damaged"),
        ({"tied": None}, "damaged"),
    ],
)
def test_an_inconsistent_header_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "a"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    rewritten(path, lambda header: header.update(change))
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["architecture", "input_spec", "input_spec_hash", "thresholds", "tied"])
def test_a_missing_field_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    rewritten(path, lambda header: header.pop(name))
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(path)


def test_fields_of_a_later_minor_version_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_checkpoint(path, weights=small_weights(), info=INFO)
    rewritten(path, lambda header: header.update(tomorrow=1))
    assert read_checkpoint(path).info == INFO
