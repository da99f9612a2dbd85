"""Evaluation sets: manifests of crops, and folders of clips with labels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from models.errors import UnmaskError
from trainers.data.manifest import LABELS, Manifest

Half = Literal["selection", "report"]

LABELS_FILE = "labels.csv"
# File names that do not describe the contents; the folder's name is used instead.
_NAMELESS = frozenset({"manifest", "labels"})


class SetError(UnmaskError, ValueError):
    """A set that cannot be evaluated; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class CropSet:
    """Rows of a manifest.

    Attributes:
        name: of the set in the report; unique.
        source: the manifest's file.
        manifest: all of it.
        rows: the rows to score.
        split: of the rows; None: all.
        half: of the split; None: both.
    """

    name: str
    source: Path
    manifest: Manifest
    rows: Manifest
    split: str | None
    half: Half | None


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip of a folder.

    Attributes:
        file: as in labels.csv, relative to the folder.
        label: 0 real, 1 fake.
        method: how it was forged; empty for real ones.
        dataset: that it is from.
    """

    file: str
    label: int
    method: str
    dataset: str


@dataclass(frozen=True, slots=True)
class ClipSet:
    """A folder of clips.

    Attributes:
        name: of the set in the report.
        source: the folder.
        clips: in the order of labels.csv.
    """

    name: str
    source: Path
    clips: tuple[Clip, ...]


def find_sets(sources: Sequence[Path], split: str | None, half: Half | None) -> list[CropSet | ClipSet]:
    """Read the sets behind manifests (.csv, .parquet) and folders of clips.

    Args:
        sources: a folder, or its labels.csv, is a set of clips.
        split: rows of manifests to use; folders of clips have no splits and are used whole.
        half: the selection half or the reporting half of these rows, see `Manifest.halves`.

    Raises:
        SetError: no source; a folder without labels or with bad ones; no rows in this split or half.
        ManifestError: a manifest cannot be read.
    """
    if not sources:
        raise SetError("nothing to evaluate: give a manifest, or a folder of clips with labels.csv")
    sets: list[CropSet | ClipSet] = []
    for source, name in zip(sources, _names(sources), strict=True):
        if source.is_dir():
            sets.append(_clips(source, name))
        elif source.name == LABELS_FILE and _is_of_clips(source):
            sets.append(_clips(source.parent, name))
        else:
            sets.append(_crops(source, name, split, half))
    return sets


def _names(sources: Iterable[Path]) -> list[str]:
    names: list[str] = []
    for source in sources:
        whole = source.resolve()
        nameless = whole.stem in _NAMELESS and whole.suffix
        name = whole.parent.name if nameless else (whole.name if whole.is_dir() else whole.stem)
        same = sum(known == name or known.startswith(f"{name} (") for known in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _crops(source: Path, name: str, split: str | None, half: Half | None) -> CropSet:
    manifest = rows = Manifest.read(source)
    if split is not None:
        rows = rows.where(split=split)
        if not len(rows):
            raise SetError(f"{source}: no rows of split {split!r}; available: {', '.join(sorted(set(manifest.split)))}")
    if half is not None:
        rows = rows.halves()[0 if half == "selection" else 1]
        if not len(rows):
            raise SetError(f"{source}: no rows in the {half} half; halves are separated by a hash of the group")
    return CropSet(name, source, manifest, rows, split, half)


def _clips(folder: Path, name: str) -> ClipSet:
    file = folder / LABELS_FILE
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            rows = list(csv.DictReader(opened))
    except FileNotFoundError as error:
        raise SetError(f"{folder}: a folder of clips needs {LABELS_FILE} with columns file and label") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetError(f"{file}: cannot be read: {error}") from error
    if not rows:
        raise SetError(f"{file}: lists no clips")
    if missing := {"file", "label"} - rows[0].keys():
        raise SetError(f"{file}: column {' and '.join(sorted(missing))} missing; expected file and label")
    clips = []
    for number, row in enumerate(rows, 1):
        label = {**LABELS, "0": 0, "1": 1}.get((row["label"] or "").strip())
        if label is None or not row["file"]:
            raise SetError(f"{file}: row {number}: expected a file and the label real or fake, got {row}")
        clips.append(Clip(row["file"], label, row.get("method") or "", row.get("dataset") or name))
    if len({Path(clip.file) for clip in clips}) < len(clips):
        raise SetError(f"{file}: lists a file twice")
    return ClipSet(name, folder, tuple(replace(clip, method=clip.method if clip.label else "") for clip in clips))


def _is_of_clips(file: Path) -> bool:
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            columns = next(csv.reader(opened), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False  # reading it as a manifest reports the error
    return "file" in columns and "path" not in columns
