"""Compiled networks are kept, and a damaged one is compiled again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.zoo import packaged_dir
from pipeline import quiet_openvino
from pipeline.graphs import compiled
from pipeline.graphs.compiled import compile_network
from pipeline.graphs.format import GraphError, Network, read_graph

CONFIG: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
RNET = read_graph(packaged_dir() / "mtcnn.graph").networks["rnet"]
PATCHES = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    return tmp_path / "openvino"


def outputs(network: Network = RNET, shape: tuple[int, ...] | None = None, **config: Any) -> list[Any]:
    found = compile_network(network, shape, CONFIG | config)
    result = found.create_infer_request().infer({0: PATCHES})
    return [np.array(result[output]) for output in found.outputs]


def compilations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each network that is compiled rather than read."""
    counted: list[int] = []
    read = quiet_openvino.read

    def counting(xml: bytes, weights: bytes) -> Any:
        counted.append(1)
        return read(xml, weights)

    monkeypatch.setattr(quiet_openvino, "read", counting)
    return counted


def test_a_network_is_compiled_once_and_gives_the_same_results(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = compilations(monkeypatch)
    first = outputs()
    assert len(list(cache.iterdir())) == len(counted) == 1
    second = outputs()
    assert len(counted) == 1
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_decides_the_result_is_compiled_for_itself(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = compilations(monkeypatch)
    outputs()
    outputs(shape=(2, 24, 24, 3))
    outputs(NUM_STREAMS=2)
    monkeypatch.setattr(compiled, "cpu_name", lambda: "another CPU")
    outputs()
    assert len(counted) == len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["byte", "half", "empty", "foreign"])
def test_a_damaged_entry_is_compiled_again(cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    wanted = outputs()
    (entry,) = cache.iterdir()
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(
        {"byte": bytes(data), "half": data[: len(data) // 2], "empty": b"", "foreign": b"x" * 100}[damage]
    )
    counted = compilations(monkeypatch)
    for one, other in zip(wanted, outputs(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(counted) == 1
    outputs()
    assert len(counted) == 1


def test_an_entry_under_the_name_of_another_network_is_compiled_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its results would be those of other weights."""
    wanted = outputs()
    (entry,) = cache.iterdir()
    outputs(INFERENCE_NUM_THREADS=2)
    (other,) = set(cache.iterdir()) - {entry}
    entry.write_bytes(other.read_bytes())
    counted = compilations(monkeypatch)
    for one, again in zip(wanted, outputs(), strict=True):
        np.testing.assert_array_equal(one, again)
    assert len(counted) == 1


def test_without_a_writable_cache_networks_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_CACHE", "/dev/null/cache")
    assert len(outputs()) == 2


def test_old_entries_and_those_beyond_the_limit_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    now_s = time.time()
    for name, age_s, size in [("old", 40 * 86400, 10), ("unused", 3000, 600_000), ("used", 2000, 300_000)]:
        (cache / f"{name}.blob").write_bytes(bytes(size))
        os.utime(cache / f"{name}.blob", (now_s - age_s, now_s - age_s))
    (cache / "notes.txt").write_text("not ours")
    monkeypatch.setattr(compiled, "_MAX_BYTES", 1_000_000)
    outputs()
    names = {path.name for path in cache.iterdir()}
    assert "used.blob" in names
    assert "notes.txt" in names
    assert not {"old.blob", "unused.blob"} & names


def test_an_unreadable_network_is_an_error() -> None:
    with pytest.raises(GraphError, match="OpenVINO cannot run this graph"):
        compile_network(Network(b"<net", b""), None, CONFIG)
