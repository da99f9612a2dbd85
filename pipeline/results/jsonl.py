"""Verdicts as JSON lines: one record a line, each written whole, so that an interrupted file is still valid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pydantic import ValidationError

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.contracts import Outcome, Verdict


class JsonlError(UnmaskError, ValueError):
    """A file is not a JSONL file of verdicts."""


def read_verdicts(path: Path) -> Iterator[Verdict]:
    """The records of a file, in order. An incomplete last line, left by a crash, is skipped.

    Raises:
        JsonlError: a line is not a record of this schema version.
        OSError: the file cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Verdict.model_validate_json(line)
            except ValidationError as error:
                raise JsonlError(f"{path}, line {number}: not a verdict record: {error.errors()[0]['msg']}") from error


def begins_with_record(beginning: bytes) -> bool:
    """Whether the beginning of a file is that of a JSONL file of records, of any version."""
    return re.match(rb'\s*\{\s*"schema"\s*:\s*\d', beginning) is not None


@dataclass(frozen=True, slots=True)
class Kept:
    """What resuming needs of a kept record."""

    source_sha256: str | None
    outcome: Outcome


class VerdictLog:
    """A JSONL file that verdicts are written to as they come; a context manager.

    Args:
        path: the file. It is overwritten, unless `keep` is given.
        keep: to resume: which of the file's records to keep.

    Attributes:
        kept: the kept records, by clip id.

    Raises:
        JsonlError: on resume, the file contains something other than records.
        OSError: the file cannot be read or written. A last line that is incomplete is skipped by `read_verdicts`.
    """

    def __init__(self, path: Path, *, keep: Callable[[Verdict], bool] | None = None) -> None:
        self.path = path
        self.kept: dict[str, Kept] = {}
        self._stale: set[str] = set()
        # A device such as /dev/null has no records, and must not be replaced by a file.
        if keep is not None and path.is_file():
            self._rewrite(keep)
            self._file: BinaryIO = path.open("ab", buffering=0)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=0)

    def write(self, verdict: Verdict) -> None:
        """Append a record. It replaces a kept one of the same clip."""
        if verdict.id in self.kept:
            del self.kept[verdict.id]
            self._stale.add(verdict.id)
        # One write call per record, so that an interrupt cannot split a line.
        line = verdict.to_json().encode() + b"\n"
        written = self._file.write(line)
        if written < len(line):
            # A disk that is nearly full takes a part, and raises at the next byte.
            self._file.write(line[written:])

    def close(self) -> None:
        """Close the file; replaced records are removed."""
        self._file.close()
        if self._stale:
            last = {verdict.id: number for number, verdict in enumerate(read_verdicts(self.path))}
            numbers = itertools.count()
            self._rewrite(lambda verdict: last[verdict.id] == next(numbers))
            self._stale.clear()

    def _rewrite(self, keep: Callable[[Verdict], bool]) -> None:
        with atomic_write(self.path) as file:
            for verdict in read_verdicts(self.path):
                if keep(verdict):
                    self.kept[verdict.id] = Kept(verdict.provenance.source_sha256, verdict.outcome)
                    file.write(verdict.to_json().encode() + b"\n")

    def __enter__(self) -> VerdictLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
