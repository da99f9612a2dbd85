"""A registry stores and returns weights unchanged, or fails."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.weights.registry import DamagedError, NotInRegistryError, Registry, RegistryUnavailableError

DATA = b"weights, as far as a registry knows" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()

Open = Callable[[str], Registry]


@pytest.fixture(params=["folder", "memory"])
def open_registry(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Registries in one place, each with the cache of another machine."""
    place = str(tmp_path / "registry") if request.param == "folder" else f"memory://{uuid.uuid4()}"
    return lambda machine: Registry(place, tmp_path / machine)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "made.safetensors"
    path.write_bytes(DATA)
    return path


def test_one_machine_fetches_what_another_stored(open_registry: Open, weights: Path, tmp_path: Path) -> None:
    uri = open_registry("one").put(weights, SHA256, b"{}")
    other = open_registry("other")
    assert uri == other.uri_of(SHA256)
    assert uri.endswith(f"/weights/{SHA256}.safetensors")
    path = other.get(SHA256)
    assert (path.parent, path.read_bytes()) == (tmp_path / "other", DATA)
    assert other.evaluation(SHA256) == b"{}"
    other.put_evaluation(SHA256, b'{"a": 1}')
    assert other.evaluation(SHA256) == b'{"a": 1}'


def test_no_more_is_fetched_than_was_announced(open_registry: Open, weights: Path, tmp_path: Path) -> None:
    open_registry("one").put(weights, SHA256, None)
    other = open_registry("other")
    with pytest.raises(DamagedError, match=f"more than the {len(DATA) - 1} bytes"):
        other.get(SHA256, len(DATA) - 1)
    assert not list((tmp_path / "other").glob("*.safetensors"))
    assert other.get(SHA256, len(DATA)).read_bytes() == DATA


def test_fetched_weights_outlive_the_registry(weights: Path, tmp_path: Path) -> None:
    place = tmp_path / "registry"
    registry = Registry(str(place), tmp_path / "cache")
    registry.put(weights, SHA256, None)
    registry.get(SHA256)
    place.rename(tmp_path / "gone")
    path = registry.get(SHA256)
    path.write_bytes(b"damaged on this machine")
    with pytest.raises(NotInRegistryError):
        registry.get(SHA256)
    (tmp_path / "gone").rename(place)
    assert registry.get(SHA256).read_bytes() == DATA


def test_other_bytes_are_refused(open_registry: Open, weights: Path, tmp_path: Path) -> None:
    registry = open_registry("cache")
    with pytest.raises(DamagedError, match="nothing was stored"):
        registry.put(weights, "0" * 64, None)
    with pytest.raises(NotInRegistryError):
        registry.get("0" * 64)


def test_a_damaged_file_is_not_cached(weights: Path, tmp_path: Path) -> None:
    registry = Registry(str(tmp_path / "registry"), tmp_path / "cache")
    registry.put(weights, SHA256, None)
    (tmp_path / "registry" / "weights" / f"{SHA256}.safetensors").write_bytes(DATA[:-1])
    with pytest.raises(DamagedError, match="nothing was kept"):
        registry.get(SHA256)
    assert list((tmp_path / "cache").iterdir()) == []


def test_missing_files_and_failed_writes_are_errors(open_registry: Open, weights: Path, tmp_path: Path) -> None:
    registry = open_registry("cache")
    for ask in (registry.get, registry.evaluation):
        with pytest.raises(NotInRegistryError, match=SHA256):
            ask(SHA256)
    (tmp_path / "a file").touch()
    with pytest.raises(RegistryUnavailableError, match="cannot be written"):
        Registry(str(tmp_path / "a file"), tmp_path).put(weights, SHA256, None)
    with pytest.raises(ValueError, match="64 hex digits"):
        registry.get("../../etc/passwd")
    with pytest.raises(ValueError, match="nonsense"):
        Registry("nonsense://x", tmp_path)


def test_a_graph_is_fetched_next_to_its_weights(open_registry: Open, weights: Path, tmp_path: Path) -> None:
    graph = b"graph" * 1000
    sha256 = open_registry("one").put_graph(graph)
    assert sha256 == hashlib.sha256(graph).hexdigest()
    other = open_registry("two")
    open_registry("one").put(weights, SHA256, None)
    path = other.get_graph(sha256, len(graph), weights_sha256=SHA256)
    assert path.read_bytes() == graph
    assert path == other.get(SHA256).with_suffix(".graph")
    path.write_bytes(b"damaged")
    assert other.get_graph(sha256, len(graph), weights_sha256=SHA256).read_bytes() == graph
    with pytest.raises(DamagedError, match="more than the 10 bytes"):
        other.get_graph(open_registry("one").put_graph(b"x" * 11), 10, weights_sha256=SHA256)
    with pytest.raises(NotInRegistryError):
        other.get_graph("0" * 64, 10, weights_sha256=SHA256)
