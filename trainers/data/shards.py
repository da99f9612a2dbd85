"""Tar shards of limited size that grow by whole members and can be taken up again after any interruption.

A shard that grows is called `shard-NNNNN.tar.part`. Written bytes never change, so a file cut off at a recorded end is
what it was when that end was recorded.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from models.atomic import durable_rename
from models.errors import UnmaskError

# Two empty blocks end an archive. tarfile's padding to 10,240 bytes is for tapes.
_END = bytes(2 * tarfile.BLOCKSIZE)


class ShardError(UnmaskError, RuntimeError):
    """Shards on disk are not those that were recorded."""


@dataclass(frozen=True, slots=True, order=True)
class ShardEnd:
    """How far the shards are written.

    Attributes:
        shard: number of the last one.
        end_bytes: of its members, the end of the archive not counted.
    """

    shard: int = 0
    end_bytes: int = 0


class ShardWriter:
    """Appends members to numbered shards in a folder.

    Members have no dates or owners: the same members make the same bytes.
    """

    def __init__(self, folder: Path, limit_bytes: int, at: ShardEnd | None = None) -> None:
        """Touches nothing until `open`.

        Args:
            folder: of the shards.
            limit_bytes: no shard grows beyond it, unless it holds a single member.
            at: where to go on. What was written after it is removed.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._at = at or ShardEnd()
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Remove what was written after the recorded end.

        Raises:
            ShardError: the shard to go on with is not there, or shorter than recorded.
            OSError: it cannot be written.
        """
        self._opened()

    def add(self, name: str, data: bytes) -> str:
        """Append a member.

        Returns:
            its path for a manifest beside the shards: `shard-NNNNN.tar/NAME`.

        Raises:
            ShardError: as `open`.
            OSError: it cannot be written.
        """
        info = tarfile.TarInfo(name)
        info.size = len(data)
        member = info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
        file = self._opened()
        if self._at.end_bytes and self._at.end_bytes + len(member) + len(_END) > self._limit_bytes:
            self._close_shard(file)
            self._at = ShardEnd(self._at.shard + 1)
            file = self._opened()
        file.write(member)
        self._at = ShardEnd(self._at.shard, self._at.end_bytes + len(member))
        return f"{self._name()}/{name}"

    def sync(self) -> ShardEnd:
        """Wait until everything is on disk; returns where that is."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._at

    def finish(self) -> None:
        """Close the last shard under its final name. May be called again, and without anything to add."""
        if self._file is not None or self._part().exists():
            self._close_shard(self._opened())

    def _name(self) -> str:
        return f"shard-{self._at.shard:05d}.tar"

    def _part(self) -> Path:
        return self._folder / f"{self._name()}.part"

    def _opened(self) -> BinaryIO:
        if self._file is None:
            whole, part = self._folder / self._name(), self._part()
            if whole.exists():
                durable_rename(whole, part)
            for path in self._folder.glob("shard-*.tar*"):
                if path.name > part.name:
                    path.unlink()
            if not part.exists():
                part.touch()
            file = part.open("r+b")
            if file.seek(0, os.SEEK_END) < self._at.end_bytes:
                file.close()
                raise ShardError(
                    f"{part} should hold {self._at.end_bytes} bytes by the record beside it and holds less: "
                    "the folder was changed; start again in a new one"
                )
            file.truncate(self._at.end_bytes)
            file.seek(self._at.end_bytes)
            self._file = file
        return self._file

    def _close_shard(self, file: BinaryIO) -> None:
        file.write(_END)
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._file = None
        durable_rename(self._part(), self._folder / self._name())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
