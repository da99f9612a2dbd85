"""The manifest: one table that describes each face crop. All data enters through it."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.atomic import atomic_write
from models.errors import UnmaskError

Strings = npt.NDArray[np.str_]

REAL, FAKE = 0, 1
LABELS = {"real": REAL, "fake": FAKE}
REQUIRED = ("path", "label", "split", "group", "source_video", "method", "dataset")
# Written only if a row has them.
OPTIONAL = ("source_width", "landmarks", "pair", "actor", "certainty")


class ManifestError(UnmaskError, ValueError):
    """A manifest that cannot be read or contradicts itself; the message names the row or column."""


@dataclass(frozen=True, slots=True, eq=False)
class Manifest:
    """N face crops, columnar.

    Attributes:
        root: folder that relative paths start from.
        path: str [N]: an image file, or `shard.tar/member.jpg`; absolute or relative to `root`.
        label: int8 [N], 0 real and 1 fake.
        split: str [N]: train, val, test ...
        group: str [N]: the identity, or the original video, that must not be in two splits.
        source_video: str [N]: the video that the crop is from; judged as a whole.
        method: str [N]: how it was forged; empty for real ones.
        dataset: str [N].
        source_width: float32 [N]: width in px of the crop before it was resized; nan if unknown.
        landmarks: float32 [N, 5, 2]: eyes, nose, corners of the mouth in px of the stored crop; nan if unknown.
        pair: str [N]: for a fake, the path of the real crop of the same frame and box; empty if it has no such crop.
        actor: str [N]: the person seen in the original video, across all groups; empty if unknown.
        certainty: float32 [N]: share of the people who decided that gave this label, over 0.5; 1 if it is not disputed.
    """

    root: Path
    path: Strings
    label: npt.NDArray[np.int8]
    split: Strings
    group: Strings
    source_video: Strings
    method: Strings
    dataset: Strings
    source_width: npt.NDArray[np.float32]
    landmarks: npt.NDArray[np.float32]
    pair: Strings
    actor: Strings
    certainty: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.path)
        for column in fields(self)[1:]:
            expected = (n, 5, 2) if column.name == "landmarks" else (n,)
            if (shape := getattr(self, column.name).shape) != expected:
                raise ManifestError(f"column {column.name} must have shape {expected}, got {shape}")

    def __len__(self) -> int:
        return len(self.path)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], root: Path) -> Manifest:
        """A manifest of rows, each a mapping from column to value; labels are `real` and `fake`, or 0 and 1.

        Raises:
            ManifestError: a column is missing, a label unknown or a value malformed.
        """
        columns = {name: [_text(row, name, i) for i, row in enumerate(rows)] for name in REQUIRED}
        labels = []
        for i, value in enumerate(columns["label"]):
            named = LABELS.get(value, int(value) if value in ("0", "1") else None)
            if named is None:
                raise ManifestError(f"row {i + 1}: label must be real or fake, got {value!r}")
            labels.append(named)
        return cls(
            root=root,
            label=np.array(labels, np.int8),
            source_width=np.array([_number(row.get("source_width"), i) for i, row in enumerate(rows)], np.float32),
            landmarks=np.array([_points(row.get("landmarks"), i) for i, row in enumerate(rows)], np.float32).reshape(
                -1, 5, 2
            ),
            pair=_strings([str(row.get("pair") or "") for row in rows]),
            actor=_strings([str(row.get("actor") or "") for row in rows]),
            certainty=np.array([_certainty(row.get("certainty"), i) for i, row in enumerate(rows)], np.float32),
            **{name: _strings(columns[name]) for name in REQUIRED if name != "label"},
        )

    @classmethod
    def read(cls, file: Path) -> Manifest:
        """Read a .parquet or .csv file; relative paths in it start from its folder.

        Raises:
            ManifestError: the file does not exist, has another type or no rows, or as `of`.
        """
        try:
            if file.suffix == ".parquet":
                from pyarrow import ArrowException, parquet

                try:
                    rows: Sequence[Mapping[str, Any]] = parquet.read_table(file).to_pylist()
                except ArrowException as error:
                    raise ManifestError(f"{file}: not a Parquet file: {error}") from error
            elif file.suffix == ".csv":
                with file.open(newline="", encoding="utf-8") as opened:
                    rows = list(csv.DictReader(opened))
            else:
                raise ManifestError(f"{file}: the name of a manifest must end in .parquet or .csv")
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(f"{file}: cannot be read: {error}") from error
        if not rows:
            raise ManifestError(f"{file}: has no rows")
        try:
            return cls.of(rows, file.parent)
        except ManifestError as error:
            raise ManifestError(f"{file}: {error}") from error

    def write(self, file: Path) -> None:
        """Write a .parquet or .csv file, whole or not at all; paths become relative to its folder if possible.

        Raises:
            ManifestError: the suffix is neither of them.
            OSError: it cannot be written.
        """
        rows = self._rows(file.parent)
        if file.suffix == ".csv":
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, list(rows[0]) if rows else list(REQUIRED), lineterminator="\n")
            writer.writeheader()
            writer.writerows(
                {**row, "landmarks": _joined(row["landmarks"])} if "landmarks" in row else row for row in rows
            )
            with atomic_write(file) as opened:
                opened.write(text.getvalue().encode())
        elif file.suffix == ".parquet":
            import pyarrow
            from pyarrow import parquet

            with atomic_write(file) as opened:
                parquet.write_table(pyarrow.Table.from_pylist(rows), opened, compression="zstd")
        else:
            raise ManifestError(f"{file}: the name of a manifest must end in .parquet or .csv")

    def take(self, which: npt.NDArray[np.bool_] | npt.NDArray[np.integer]) -> Manifest:
        """The rows at these indices or in this mask."""
        return replace(self, **{column.name: getattr(self, column.name)[which] for column in fields(self)[1:]})

    def where(self, **values: str) -> Manifest:
        """The rows whose columns have these values."""
        keep = np.ones(len(self), bool)
        for name, value in values.items():
            keep &= getattr(self, name) == value
        return self.take(keep)

    @property
    def sha256(self) -> str:
        """sha256 over the set of (shard or folder / name, label, split, group): the same in any place and format.

        With the certainty of labels that are disputed.
        """
        keys = [
            f"{'/'.join(Path(path).parts[-2:])}\0{label}\0{split}\0{group}" + (f"\0{sure:.4f}" if sure < 1 else "")
            for path, label, split, group, sure in zip(
                self.path, self.label, self.split, self.group, self.certainty, strict=True
            )
        ]
        return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()

    def halves(self) -> tuple[Manifest, Manifest]:
        """Split by a hash of the group: one half to select and calibrate on, the other to report on.

        Returns:
            The selection half and the reporting half; they share no group.
        """
        first = np.array([hashlib.sha256(group.encode()).digest()[0] % 2 == 0 for group in self.group], bool)
        return self.take(first), self.take(~first)

    def _rows(self, folder: Path) -> list[dict[str, Any]]:
        names = {0: "real", 1: "fake"}
        widths, points = np.isfinite(self.source_width).any(), np.isfinite(self.landmarks).any()
        pairs, actors, disputed = (self.pair != "").any(), (self.actor != "").any(), (self.certainty < 1).any()
        rows: list[dict[str, Any]] = []
        for i in range(len(self)):
            row: dict[str, Any] = {name: str(getattr(self, name)[i]) for name in REQUIRED if name != "label"}
            row |= {"path": self._relative(row["path"], folder), "label": names[int(self.label[i])]}
            row = {name: row[name] for name in REQUIRED}
            if widths:
                row["source_width"] = float(self.source_width[i]) if np.isfinite(self.source_width[i]) else None
            if points:
                known = bool(np.isfinite(self.landmarks[i]).all())
                row["landmarks"] = [round(float(v), 2) for v in self.landmarks[i].ravel()] if known else None
            if pairs:
                row["pair"] = self._relative(str(self.pair[i]), folder) if self.pair[i] else ""
            if actors:
                row["actor"] = str(self.actor[i])
            if disputed:
                row["certainty"] = round(float(self.certainty[i]), 4)
            rows.append(row)
        return rows

    def _relative(self, path: str, folder: Path) -> str:
        # Not resolve(), which makes file system calls for each part of each path.
        whole, base = (Path(os.path.abspath(p)) for p in (self.root / path, folder))  # noqa: PTH100
        return str(whole.relative_to(base)) if whole.is_relative_to(base) else str(whole)


def join(parts: Sequence[Manifest], root: Path) -> Manifest:
    """All rows of several manifests, their paths relative to `root` if they are inside it, else absolute."""
    if not parts:
        return Manifest.of([], root)
    return Manifest.of([row for part in parts for row in part._rows(root)], root)


def _strings(values: Sequence[str]) -> Strings:
    return np.array(values, dtype=np.str_) if values else np.zeros(0, "U1")


def _text(row: Mapping[str, Any], name: str, i: int) -> str:
    value = row.get(name)
    if value is None and name not in row:
        raise ManifestError(f"row {i + 1}: column {name} is missing; required columns: {', '.join(REQUIRED)}")
    if name == "path" and not value:
        raise ManifestError(f"row {i + 1}: the path is empty")
    return "" if value is None else str(value)


def _number(value: object, i: int, name: str = "source_width") -> float:
    if value in (None, ""):
        return float("nan")
    try:
        return float(str(value))
    except ValueError as error:
        raise ManifestError(f"row {i + 1}: {name} must be a number, got {value!r}") from error


def _certainty(value: object, i: int) -> float:
    found = _number(value, i, "certainty")
    if math.isnan(found):
        return 1.0
    if not 0.5 <= found <= 1:
        raise ManifestError(f"row {i + 1}: certainty must be in 0.5..1, got {value!r}")
    return found


def _points(value: Any, i: int) -> list[float]:
    if value is None or value == "":
        return [float("nan")] * 10
    try:
        points = [float(v) for v in (value.split() if isinstance(value, str) else value)]
    except (TypeError, ValueError) as error:
        raise ManifestError(f"row {i + 1}: landmarks must be ten numbers, got {value!r}") from error
    if len(points) != 10:
        raise ManifestError(f"row {i + 1}: landmarks must be ten numbers, got {len(points)}")
    return points


def _joined(points: Sequence[float] | None) -> str:
    return " ".join(f"{point:g}" for point in points) if points else ""
