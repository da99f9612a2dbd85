"""Which files an archive has: CSV, Parquet, JSON lines or a plain list, read row by row."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any, BinaryIO, Final

import numpy as np

from models.errors import UnmaskError
from pipeline.contracts import clip_id_of
from pipeline.sources import Source, SourceLimits, open_source

COLUMNS: Final = ("uri", "id", "size_bytes")
# Of bad rows, that an error names.
_MOST_NAMED: Final = 10
_BATCH_ROWS: Final = 4096
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class ManifestError(UnmaskError, ValueError):
    """A manifest cannot be read, or has rows that cannot be judged; the message names them."""


class _RowError(Exception):
    """What is wrong with one row."""


@dataclass(frozen=True, slots=True)
class Row:
    """A file of an archive.

    Attributes:
        number: of the row, from 1 on, without a header; in JSON lines and lists, of the line.
        id: of its record.
        uri: path or URI as given.
        size_bytes: None where it is unknown.
    """

    number: int
    id: str
    uri: str
    size_bytes: int | None

    @property
    def source(self) -> Source:
        """What a scanner opens."""
        return Source(self.uri, given_id=self.id)


@dataclass(frozen=True, slots=True)
class Checked:
    """What the first pass over a manifest found: no row is bad.

    Attributes:
        rows: how many.
        has_relative: some paths start from the working folder.
    """

    rows: int
    has_relative: bool


class Manifest:
    """An open manifest: its rows can be read several times; see `open_manifest`.

    Attributes:
        name: as given.
        sha256: of its bytes.
    """

    def __init__(self, name: str, fd: int, sha256: str, kind: str) -> None:
        self.name, self.sha256 = name, sha256
        self._fd, self._read = fd, _READERS[kind]

    def rows(self) -> Iterator[Row]:
        """The rows in order; local files without a size get theirs from the file system.

        Raises:
            ManifestError: a row is bad.
        """
        for number, given in self._given():
            try:
                row = _parsed(number, given)
            except _RowError as error:
                raise ManifestError(f"{self.name}: row {number}: {error}") from error
            yield row if row.size_bytes is not None else Row(number, row.id, row.uri, _size(row.source))

    def check(self) -> Checked:
        """Read all rows once: each must have a `uri`, and an `id` of its own. Keeps 8 bytes for each row.

        Raises:
            ManifestError: no rows, or bad ones, with their numbers.
        """
        problems: list[str] = []
        hashes, has_relative = array("Q"), False
        for number, given in self._given():
            try:
                row = _parsed(number, given)
            except _RowError as error:
                problems.append(f"row {number}: {error}")
                if len(problems) >= _MOST_NAMED:
                    break
                continue
            hashes.append(_hash(row.id))
            has_relative = has_relative or not (row.source.is_remote or row.source.path.startswith("/"))
        if not problems and not hashes:
            raise ManifestError(f"{self.name}: has no rows")
        if len(problems) < _MOST_NAMED:
            problems += self._duplicates(hashes, _MOST_NAMED - len(problems))
        if problems:
            more = "; there may be more" if len(problems) >= _MOST_NAMED else ""
            raise ManifestError(f"{self.name}: nothing was judged: {'; '.join(problems)}{more}")
        return Checked(len(hashes), has_relative)

    def _duplicates(self, hashes: array[int], most: int) -> list[str]:
        """Rows whose id an earlier row has. Only ids whose hash occurs twice are kept in memory."""
        values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
        suspects = {int(value) for value in values[counts > 1]}
        first: dict[str, int] = {}
        found: list[str] = []
        for number, given in self._given() if suspects else ():
            try:
                row = _parsed(number, given)
            except _RowError:
                continue
            if _hash(row.id) in suspects and (earlier := first.setdefault(row.id, number)) != number:
                what = f"has the id {row.id!r}" if given.get("id") else f"names {row.uri!r}"
                found.append(f"row {number}: {what} of row {earlier}")
                if len(found) >= most:
                    break
        return found

    def _given(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._fd), "rb") as file:
            try:
                yield from self._read(file)
            except (UnicodeDecodeError, csv.Error, ManifestError) as error:
                raise ManifestError(f"{self.name}: {error}") from error


@contextmanager
def open_manifest(name: str, limits: SourceLimits | None = None) -> Iterator[Manifest]:
    """Open a manifest, a path or a URI as for clips; its bytes must not change until the end of the block.

    Raises:
        ManifestError: its name has another suffix.
        SourceError: it cannot be opened or fetched, or changed meanwhile.
    """
    source = Source(name)
    path = name.partition("?")[0] if source.is_remote else name
    kind = PurePosixPath(path).suffix.lower()
    if kind not in _READERS:
        raise ManifestError(f"{name}: the name of a manifest must end in one of {', '.join(sorted(_READERS))}")
    with open_source(source, limits) as opened:
        yield Manifest(name, opened.fd, opened.sha256, kind)


def _parsed(number: int, given: Mapping[str, Any]) -> Row:
    if "error" in given:
        raise _RowError(given["error"])
    uri = given.get("uri")
    if uri is None or not str(uri).strip():
        raise _RowError("uri is empty")
    if not isinstance(uri, str):
        raise _RowError(f"uri must be a text, got {uri!r}")
    if "\0" in uri or not _is_text(uri):
        raise _RowError("uri has a character that no path and no URI has")
    id_ = given.get("id")
    if id_ is None or id_ == "":
        id_ = clip_id_of(uri)
    elif isinstance(id_, bool) or not isinstance(id_, str | int) or not _ID.fullmatch(str(id_)):
        raise _RowError(f"id must have 1 to 128 letters, digits or . _ : -, got {id_!r}")
    return Row(number, str(id_), uri, _number(given.get("size_bytes")))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Any) -> int | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        number = int(value)
    except (ValueError, TypeError, OverflowError):
        number = -1
    if isinstance(value, bool) or not 0 <= number < 1 << 63 or (isinstance(value, float) and number != value):
        raise _RowError(f"size_bytes must be a whole number, got {value!r}")
    return number


def _size(source: Source) -> int | None:
    """Of a local file, 0 if it is missing; remote ones are not asked for, which would take a request each."""
    if source.is_remote:
        return None
    try:
        return os.stat(source.path).st_size  # noqa: PTH116 - a name that is too long just does not exist
    except OSError:
        return 0


def _hash(id_: str) -> int:
    return int.from_bytes(blake2b(id_.encode(), digest_size=8).digest(), "little")


def _csv(file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))
    _check_columns(reader.fieldnames or ())
    yield from enumerate(reader, 1)


def _parquet(file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        # By path, pyarrow reads ahead without limits of its own; a file object is read as batches are asked for.
        opened = parquet.ParquetFile(file)
        _check_columns(opened.schema_arrow.names)
        columns = [name for name in COLUMNS if name in opened.schema_arrow.names]
        number = 0
        for batch in opened.iter_batches(_BATCH_ROWS, columns=columns):
            for given in batch.to_pylist():
                number += 1
                yield number, given
    except ArrowException as error:
        raise ManifestError(f"not a Parquet file: {error}") from error


def _json_lines(file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            given = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, {"error": f"not JSON: {error}"}
            continue
        yield number, given if isinstance(given, dict) else {"error": "expected an object with a field uri"}


def _lines(file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        name = line.rstrip(b"\r\n")
        if not name.strip():
            continue
        try:
            yield number, {"uri": name.decode()}
        except UnicodeDecodeError:
            yield number, {"error": "not UTF-8; unmask scan reads such names"}


def _check_columns(names: Any) -> None:
    if "uri" not in names:
        raise ManifestError(f"expected a column uri, found {', '.join(map(str, names)) or 'no columns'}")


_READERS: Final[dict[str, Callable[[BinaryIO], Iterator[tuple[int, Mapping[str, Any]]]]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".txt": _lines,
}
