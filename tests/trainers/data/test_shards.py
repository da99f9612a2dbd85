"""Shards grow by whole members, within their limit, and are the same after any number of interruptions."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.images import ImageStore
from trainers.data.shards import ShardEnd, ShardError, ShardWriter

LIMIT = 8 * 1024


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write(folder: Path, sizes: list[int]) -> list[str]:
    with ShardWriter(folder, LIMIT) as shards:
        paths = [shards.add(f"{n}.jpg", bytes([n % 256]) * size) for n, size in enumerate(sizes)]
        shards.finish()
        shards.finish()
    return paths


@given(sizes=st.lists(st.integers(0, 9000), min_size=1, max_size=12))
@settings(deadline=None, max_examples=10)
def test_members_read_back_and_shards_keep_their_limit(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write(folder, sizes)
        store = ImageStore(folder)
        for n, (path, size) in enumerate(zip(paths, sizes, strict=True)):
            assert store.read(path) == bytes([n % 256]) * size
        for shard in sorted(folder.iterdir()):
            with tarfile.open(shard) as tar:
                members = tar.getnames()
            assert shard.stat().st_size <= LIMIT or len(members) == 1
        assert {path.split("/")[0] for path in paths} == set(contents(folder))


@given(
    sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=10),
    stop=st.integers(0, 9),
    beyond=st.integers(0, 6),
    finished=st.booleans(),
)
@settings(deadline=None, max_examples=12)
def test_a_resumed_writer_makes_the_same_shards(sizes: list[int], stop: int, beyond: int, finished: bool) -> None:
    stop = min(stop, len(sizes))
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        write(Path(first), sizes)
        with ShardWriter(Path(second), LIMIT) as shards:
            for n, size in enumerate(sizes[:stop]):
                shards.add(f"{n}.jpg", bytes([n % 256]) * size)
            end = shards.sync()
            # Data written after the last record, maybe into further shards, is lost.
            for n in range(beyond):
                shards.add(f"lost{n}.jpg", bytes(3000))
            if finished:
                shards.finish()
        with ShardWriter(Path(second), LIMIT, end) as shards:
            shards.open()
            for n, size in enumerate(sizes[stop:], stop):
                shards.add(f"{n}.jpg", bytes([n % 256]) * size)
            shards.finish()
        assert contents(Path(second)) == contents(Path(first))


def test_truncated_shards_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [100, 100])
    (shard,) = tmp_path.iterdir()
    shard.write_bytes(shard.read_bytes()[:1000])
    with ShardWriter(tmp_path, LIMIT, ShardEnd(0, 2048)) as shards, pytest.raises(ShardError, match="has less"):
        shards.add("x.jpg", b"x")
    for path in tmp_path.iterdir():
        path.unlink()
    with ShardWriter(tmp_path, LIMIT, ShardEnd(0, 2048)) as shards, pytest.raises(ShardError, match="has less"):
        shards.open()
