"""Tar shards of limited size that grow by whole members and can be resumed after any interruption.

A growing shard is named `shard-NNNNN.tar.part`. Written bytes never change, so a file cut off at a recorded end is
the same as when that end was recorded.
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
    """Shards on disk do not match the record."""


@dataclass(frozen=True, slots=True, order=True)
class ShardEnd:
    """The end of the written shards.

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
        """Prepare the writer; nothing is written until `open`.

        Args:
            folder: of the shards.
            limit_bytes: largest size of a shard, unless it has a single member.
            at: where to resume. Later data is removed.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._at = at or ShardEnd()
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Remove data written after the recorded end.

        Raises:
            ShardError: the shard to resume is missing, or shorter than recorded.
            OSError: it cannot be written.
        """
        self._opened()

    def add(self, name: str, data: bytes) -> str:
        """Append a member.

        Returns:
            its path for a manifest next to the shards: `shard-NNNNN.tar/NAME`.

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
        """Wait until everything is on disk; returns the end position."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._at

    def finish(self) -> None:
        """Close the last shard under its final name. Can be called repeatedly, and without new members."""
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
                    f"{part} should have {self._at.end_bytes} bytes by its record and has less: "
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
