"""What a part under way has found so far: JSON lines on this machine, so that a crash loses the clips under way alone.

Each try of a part writes a file of its own, and reads those of earlier ones: a worker that was taken for dead, and
still writes, disturbs nothing. Lines:

    {"row": 17}                              the file of row 17 was begun
    {"row": 17, "record": "{\\"schema\\": 1..."}   it has its record, byte for byte as `unmask scan --jsonl` writes it
    {"ended": true}                          the try was ended on request: what it had begun is not suspicious
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from pipeline.archive.output import NotWrittenError
from pipeline.contracts import Verdict


class Journal:
    """The journal of one part; a context manager.

    Args:
        folder: of the journals of an archive.
        part: number of the part.

    Attributes:
        suspects: rows that were under way when an earlier try was killed, and have no record.

    Raises:
        NotWrittenError: the folder or the file cannot be written.
    """

    def __init__(self, folder: Path, part: int) -> None:
        self._folder, self._part = folder, part
        self._path = folder / f"part-{part:05d}.{secrets.token_hex(4)}.jsonl"
        # Where each record is: a part's records may be too large to hold them.
        self._places: dict[int, tuple[Path, int, int]] = {}
        self.suspects: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in _files(folder, part):
                self._read(path)
            self.suspects -= self._places.keys()
            self._file = self._path.open("wb", buffering=0)
        except OSError as error:
            raise self._not_written(error) from error
        self._size_bytes = 0

    def __contains__(self, row: int) -> bool:
        return row in self._places

    def __len__(self) -> int:
        return len(self._places)

    def began(self, row: int) -> None:
        """Note that the file of this row is being judged.

        Raises:
            NotWrittenError: the journal cannot be written, as in the other methods.
        """
        self._write({"row": row})

    def add(self, row: int, record: str) -> None:
        """Keep a record; an earlier one of this row is replaced."""
        start = self._size_bytes
        self._write({"row": row, "record": record})
        self._places[row] = self._path, start, self._size_bytes - start

    def ended(self) -> None:
        """Note that this try ends on request."""
        self._write({"ended": True})

    def record(self, row: int) -> str:
        """The record of a row.

        Raises:
            KeyError: it has none.
            OSError: the journal cannot be read.
        """
        path, start, size_bytes = self._places[row]
        with path.open("rb") as file:
            file.seek(start)
            return str(json.loads(file.read(size_bytes))["record"])

    def delete(self) -> None:
        """Delete this part's journals: its Parquet file is complete."""
        delete_journals(self._folder, self._part)

    def _read(self, path: Path) -> None:
        begun: set[int] = set()
        for start, line in _lines(path):
            try:
                said = json.loads(line)
                if said.get("ended"):
                    begun.clear()
                elif "record" in said:
                    Verdict.model_validate_json(said["record"])
                    self._places[int(said["row"])] = path, start, len(line)
                else:
                    begun.add(int(said["row"]))
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
                continue  # damaged: that file is judged again
        self.suspects |= begun

    def _write(self, said: dict[str, object]) -> None:
        line = json.dumps(said).encode() + b"\n"
        try:
            # A disk that is nearly full takes a part, and raises at the next byte.
            rest = line
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._not_written(error) from error
        self._size_bytes += len(line)

    def _not_written(self, error: OSError) -> NotWrittenError:
        return NotWrittenError(f"{self._path}: cannot be written: {error.strerror or error}")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def delete_journals(folder: Path, part: int) -> None:
    """Delete what earlier tries of a part have left; the folder stays, since other parts may be about to use it."""
    for path in _files(folder, part):
        path.unlink(missing_ok=True)


def _files(folder: Path, part: int) -> list[Path]:
    return sorted(folder.glob(f"part-{part:05d}.*.jsonl"))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Start and bytes of each complete line."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)
