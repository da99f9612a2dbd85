"""Copies of stored files: bounded, fetched once, and safe while they are in use."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.sources import ScanInterruptedError
from web.media import READ_BYTES, StoreAwayError, StoredFile
from web.media_copies import LocalCopies
from web.media_store import media_of


def never() -> bool:
    return False


class Store:
    """Files of some size, and how often each was fetched."""

    def __init__(self, size_bytes: int = 100) -> None:
        self.size_bytes = size_bytes
        self.fetched: list[str] = []

    def find(self, id_: str) -> StoredFile:
        self.fetched.append(id_)
        return StoredFile(self.size_bytes, lambda start, end: id_.encode() * (end - start))


def use(copies: LocalCopies, store: Store, *ids: str) -> None:
    for id_ in ids:
        with copies.holding(id_, lambda id_=id_: store.find(id_), never) as path:  # type: ignore[misc]
            assert path.read_bytes() == id_.encode() * store.size_bytes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_not_used_for_longest_goes_first_also_after_a_restart(tmp_path: Path) -> None:
    copies, store = LocalCopies(tmp_path, 300), Store()
    use(copies, store, "a", "b", "c", "a", "d")
    assert (names(tmp_path), store.fetched) == ({"a", "c", "d"}, ["a", "b", "c", "d"])
    (tmp_path / "e.part").write_bytes(b"x")
    again = LocalCopies(tmp_path, 300)
    use(again, store, "e")
    assert names(tmp_path) == {"a", "d", "e"}
    again.keep_only({"d"})
    assert names(tmp_path) == {"d"}


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    copies, store = LocalCopies(tmp_path, 100), Store()
    with copies.holding("a", lambda: store.find("a"), never) as path:
        use(copies, store, "b", "c")
        assert path.exists()
        copies.delete("a")
        assert not path.exists()
    use(copies, store, "d")
    assert names(tmp_path) == {"d"}


def test_many_readers_fetch_once(tmp_path: Path) -> None:
    copies, store, together = LocalCopies(tmp_path, 10), Store(), threading.Barrier(4)

    def read(_: int) -> bytes:
        together.wait()
        with copies.holding("a", lambda: store.find("a"), never) as path:
            together.wait()
            return path.read_bytes()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(read, range(4))) == {b"a" * 100}
    assert store.fetched == ["a"]
    assert names(tmp_path) == set()


def test_a_video_that_is_deleted_while_it_is_fetched_leaves_nothing(tmp_path: Path) -> None:
    copies = LocalCopies(tmp_path, 1000)

    def read(start: int, end: int) -> bytes:
        copies.delete("a")
        return bytes(end - start)

    with copies.holding("a", lambda: StoredFile(10, read), never):
        pass
    assert names(tmp_path) == set()


def test_a_fetch_that_fails_or_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    copies, store = LocalCopies(tmp_path, 1000), Store(READ_BYTES + 1)

    def away(start: int, end: int) -> bytes:
        if start:
            raise StoreAwayError
        return bytes(end - start)

    with pytest.raises(StoreAwayError), copies.holding("a", lambda: StoredFile(READ_BYTES + 1, away), never):
        pass
    with pytest.raises(ScanInterruptedError), copies.holding("a", lambda: store.find("a"), lambda: True):
        pass
    assert names(tmp_path) == set()
    with copies.holding("a", lambda: None, never) as path:
        assert not path.exists()
    use(copies, store, "a")


def test_a_command_beside_the_service_leaves_alone_what_is_under_way(tmp_path: Path) -> None:
    upload, copy = tmp_path / "media/ab" / f"{'ab' * 12}.part", tmp_path / "copies" / f"{'cd' * 12}.part"
    for path in (upload, copy):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"half")
    media_of(None, tmp_path, 1)
    LocalCopies(copy.parent, 1, clean_up=False)
    assert (upload.exists(), copy.exists()) == (True, True)
    media_of(None, tmp_path, 1, clean_up=True)
    LocalCopies(copy.parent, 1)
    assert (upload.exists(), copy.exists()) == (False, False)
