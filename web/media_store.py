"""Uploaded files in a store behind a URI that fsspec knows, such as s3://bucket/prefix."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from web.media import READ_BYTES, Media, MediaWriter, Stop, StoreAwayError, StoredFile, relative, writing_to
from web.media_copies import LocalCopies
from web.media_folder import NAME, MediaFolder
from web.store_uri import StoreUri, owner_of

log = structlog.get_logger(__name__)

# S3 takes 5 MiB at least, and 10,000 parts; other stores, multiples of some power of two. Each upload that is under way
# holds one part in memory, or two.
_MIB: Final = 1 << 20
_PART_BYTES: Final = 5 * _MIB
_MAX_PARTS: Final = 9_000
_FOLDER: Final = re.compile("[0-9a-f]{2}")


class MediaStore:
    """Objects by the id of their video, as a `MediaFolder` names files. See `Media`.

    Uploads that are resumed grow in a folder of this machine. Files there of an earlier time, when the service had no
    store, are found, too.

    Args:
        uri: of the store.
        local: where uploads grow.
        copies: for what needs files on this machine.
    """

    def __init__(self, uri: StoreUri, local: MediaFolder, copies: LocalCopies) -> None:
        self._uri = uri
        self._files, self._root = uri.opened()
        self._local = local
        self._copies = copies
        self._folders: set[str] = set()
        self._lock = threading.Lock()
        self._readers: Counter[str] = Counter()  # of files where uploads grow

    @property
    def base(self) -> str:
        """The URI."""
        return self._uri.text

    def writing(self, id_: str, max_bytes: int) -> AbstractContextManager[MediaWriter]:
        """See `Media.writing`."""
        return writing_to(lambda: self._target(id_, max_bytes), max_bytes)

    def make(self, id_: str) -> None:
        """See `Media.make`."""
        self._local.make(id_)

    def grown(self, id_: str) -> Path:
        """See `Media.grown`."""
        return self._local.path(id_)

    def take(self, id_: str, stop: Stop = lambda: False) -> None:
        """See `Media.take`."""
        with self.grown(id_).open("rb") as file:
            target = self._target(id_, self.grown(id_).stat().st_size)
            try:
                while block := file.read(READ_BYTES):
                    if stop():
                        raise StoreAwayError
                    target.write(block)
                target.commit()
            except BaseException:
                target.discard()
                raise

    def release(self, id_: str) -> None:
        """See `Media.release`: it becomes the copy, since it is judged next. One that is read already stays."""
        with self._lock:
            if not self._readers[id_]:
                self._copies.adopt(id_, self.grown(id_))

    def find(self, id_: str) -> StoredFile | None:
        """See `Media.find`."""
        if (local := self._local.find(id_)) is not None:
            return local
        path = self._path(id_)
        with self._reaching("find"):
            try:
                size_bytes = int(self._files.info(path)["size"])
            except FileNotFoundError:
                return None

        def read(start: int, end: int) -> bytes:
            with self._reaching("read"):
                data = bytes(self._files.cat_file(path, start=start, end=end))
                if len(data) != end - start:
                    raise EOFError(f"{len(data)} bytes came, not {end - start}")
            return data

        return StoredFile(size_bytes, read)

    @contextmanager
    def local(self, id_: str, stop: Stop = lambda: False) -> Iterator[Path]:
        """See `Media.local`."""
        with self._lock:
            if is_here := self._local.path(id_).is_file():
                self._readers[id_] += 1
        if is_here:
            try:
                yield self._local.path(id_)
            finally:
                with self._lock:
                    self._readers.subtract([id_])
                    self._readers += Counter()  # without those of 0
            return
        with self._copies.holding(id_, lambda: self.find(id_), stop) as path:
            yield path

    def delete(self, id_: str) -> None:
        """See `Media.delete`."""
        with self._reaching("delete"), suppress(FileNotFoundError):
            self._files.rm_file(self._path(id_))
        self._copies.delete(id_)
        self._local.delete(id_)

    def discard(self, id_: str) -> None:
        """See `Media.discard`."""
        with suppress(StoreAwayError):
            self.delete(id_)
        self._local.delete(id_)

    def remove_unknown(self, videos: set[str], growing: set[str]) -> None:
        """See `Media.remove_unknown`: of the store, only objects below its prefix that are named like an upload."""
        self._local.remove_unknown(videos, growing)
        self._copies.keep_only(videos)
        with self._reaching("list"):
            stored = set(self._stored())
            for id_ in stored - videos - growing:
                self._files.rm_file(self._path(id_))
            # The service ended right after it had taken these, they were read just then, or someone has copied them.
            for id_ in (stored & videos) - growing:
                path = self._local.path(id_)
                if path.is_file() and path.stat().st_size == self._files.info(self._path(id_))["size"]:
                    self._local.delete(id_)
        missing = sum(not self._local.path(id_).is_file() for id_ in videos - stored)
        if missing:
            log.warning("the store lacks files of videos", videos=missing)

    def _stored(self) -> Iterator[str]:
        """Ids of the objects that are named like an upload, folder by folder: fsspec keeps whole lists in memory."""
        for folder in self._files.ls(self._root, detail=False):
            if _FOLDER.fullmatch(str(folder).rstrip("/").rpartition("/")[2]):
                for name in self._files.find(folder):
                    if found := NAME.fullmatch(str(name).removeprefix(self._root).lstrip("/")):
                        yield found[2]
                self._files.invalidate_cache()

    def _path(self, id_: str) -> str:
        return f"{self._root}/{relative(id_)}"

    def _target(self, id_: str, max_bytes: int) -> _ObjectTarget:
        path = self._path(id_)
        with self._reaching("open"):
            self._make_folder(path.rpartition("/")[0])
            part_bytes = max(_PART_BYTES, (max_bytes // _MAX_PARTS // _MIB + 1) * _MIB)
            file = self._files.open(path, "wb", block_size=part_bytes, autocommit=False)
        return _ObjectTarget(self, path, file)

    def _make_folder(self, path: str) -> None:
        if path not in self._folders:
            self._files.makedirs(path, exist_ok=True)
            self._folders.add(path)

    @contextmanager
    def _reaching(self, work: str) -> Iterator[None]:
        """What the store's file system raises becomes one error, and its text goes to the log only."""
        try:
            yield
        except StoreAwayError:
            raise
        except Exception as error:  # noqa: BLE001 - plug-in file systems raise anything
            log.warning("the store is away", store=self._uri.shown, work=work, error=self._uri.plain(error))
            raise StoreAwayError from None


def media_of(store: str | None, folder: Path, cache_bytes: int, *, clean_up: bool = False) -> Media:
    """What keeps the uploads of a service.

    Args:
        store: a URI, or a path; None: the service's own folder.
        folder: of the service.
        cache_bytes: of copies of what is in a store.
        clean_up: remove what an earlier process left; only the service itself, at its start, knows what that is.

    Raises:
        StoreError: the store cannot be used.
        OSError: the folder cannot be written.
    """
    own = folder / "media"
    if store is None:
        return MediaFolder(own, clean_up=clean_up)
    uri = StoreUri(store)
    if uri.folder is not None:
        StoreUri(f"file://{uri.folder}").claim(owner_of(folder))
        return MediaFolder(uri.folder, clean_up=clean_up)
    uri.claim(owner_of(folder))
    copies = LocalCopies(folder / "copies", cache_bytes, clean_up=clean_up)
    return MediaStore(uri, MediaFolder(own, clean_up=clean_up), copies)


class _ObjectTarget:
    """An object that appears at the end, where its file system can do that; S3 can."""

    def __init__(self, store: MediaStore, path: str, file: Any) -> None:
        self._store = store
        self._path = path
        self._file = file
        self._size_bytes = 0

    def write(self, data: bytes) -> None:
        with self._store._reaching("write"):
            self._file.write(data)
        self._size_bytes += len(data)

    def commit(self) -> None:
        files = self._store._files
        with self._store._reaching("commit"):
            self._file.close()
            getattr(self._file, "commit", _stored_by_close)()
            files.invalidate_cache(self._path)
            if (found := files.info(self._path)["size"]) != self._size_bytes:
                raise EOFError(f"the store has {found} bytes of {self._size_bytes}")

    def discard(self) -> None:
        # Each may fail because the last one did, or the store is away; what is left then is deleted at the next start.
        for end in (self._file.close, self._file.discard, lambda: self._store._files.rm_file(self._path)):
            with suppress(Exception):
                end()


def _stored_by_close() -> None:
    """Some file systems have files without a `commit`."""
