"""A store for tests: a folder behind a file system of fsspec's, which fails when it is asked to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileOpener, LocalFileSystem


class Shelf(LocalFileSystem):  # type: ignore[misc]
    """Files of this machine under `shelf://user:password@/path`; as with S3, a file appears when it is committed.

    Attributes:
        fails: the methods that raise an error, by name; `write` fails after the first block.
    """

    protocol = "shelf"
    fails: ClassVar[set[str]] = set()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(path.removeprefix("shelf://").removeprefix("me:s3cret@")))

    @classmethod
    def _get_kwargs_from_urls(cls, path: str) -> dict[str, str]:
        return {}

    @classmethod
    def check(cls, work: str) -> None:
        """Raise an error if this should fail."""
        if work in cls.fails:
            raise RuntimeError(f"{work}: no connection to shelf://me:s3cret@/")

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **more: Any) -> Any:
        self.check("open")
        if mode == "rb":
            return super()._open(path, mode, block_size, **more)
        return _Opener(path, mode, fs=self, **more)

    def info(self, path: str, **more: Any) -> Any:
        self.check("info")
        return super().info(path, **more)

    def find(self, path: str, **more: Any) -> Any:
        self.check("find")
        return super().find(path, **more)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> Any:
        self.check("cat_file")
        return super().cat_file(path, start, end, **more)

    def rm_file(self, path: str) -> None:
        self.check("rm_file")
        super().rm_file(path)


class _Opener(LocalFileOpener):  # type: ignore[misc]
    written = 0

    def write(self, data: bytes) -> int:
        if self.written:
            Shelf.check("write")
        self.written += 1
        return int(self.f.write(data))

    def commit(self) -> None:
        Shelf.check("commit")
        super().commit()


@contextmanager
def failing(*works: str) -> Iterator[None]:
    """Let these fail until the end of the block."""
    Shelf.fails.update(works)
    try:
        yield
    finally:
        Shelf.fails.clear()


def register() -> None:
    """Make the file system known to fsspec."""
    fsspec.register_implementation("shelf", Shelf, clobber=True)
