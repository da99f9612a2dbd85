"""Any folder of clips: a table `labels.csv`, or sub-folders `real` and `fake`.

    labels.csv                                   columns file, label (real or fake); optional: method, group, pair,
                                                 split, dataset

    real/NAME.mp4                                clips may be videos, pictures, or folders of frames
    fake/NAME.mp4, fake/METHOD/NAME.mp4          fake/NAME/*.png is a clip NAME, fake/METHOD/NAME/*.png one of METHOD

    NAME.jpg, NAME.mp4                           with `--all-real`: everything in the folder is real

The column `pair` is the file of the real that a fake was made from (or of a fake, in a real's row). In sub-folders a
fake belongs to the real of its own name, or to the one whose name it continues after an underscore (`7_3` or `7_blend`
to `7`); the rest of the name connects a second real if one has that name (`3`). Connected clips are one
group. If no split is given, groups are split by a hash of their name.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trainers.data.layouts.listing import (
    LayoutError,
    LayoutOptions,
    Listing,
    SourceVideo,
    clip_name,
    walk_clips,
    what_is_in,
)
from trainers.data.layouts.splits import connected
from trainers.data.manifest import FAKE, LABELS, REAL

TABLE = "labels.csv"
_COLUMNS = ("method", "group", "pair", "split", "dataset")


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    label: int
    method: str
    ties: tuple[str, ...]  # names of the rows that it is connected to, its original first
    group: str = ""
    split: str = ""
    dataset: str = ""


def read(root: Path, options: LayoutOptions) -> Listing:
    """The clips of a folder.

    Raises:
        LayoutError: neither a table nor sub-folders, a malformed table, or no clips.
    """
    if options.all_real:
        rows = _all_real(root)
    elif (root / TABLE).is_file():
        rows = _of_table(root)
    elif (root / "real").is_dir() or (root / "fake").is_dir():
        rows = _of_folders(root)
    else:
        raise LayoutError(f"expected labels.csv, or folders real and fake, in {root}; {what_is_in(root)}")
    components = connected([(name, *row.ties) for name, row in rows.items()])
    default = options.dataset or root.resolve().name
    datasets = {name: options.dataset or row.dataset or default for name, row in rows.items()}
    # Named after the real if it exists, so that another fake does not rename a group.
    heads = {
        name: min(members, key=lambda member: (rows[member].label, member)) for name, members in components.items()
    }
    groups = {
        name: row.group or rows[head].group or f"{datasets[head]}-{head}"
        for (name, row), head in zip(rows.items(), (heads[name] for name in rows), strict=True)
    }
    # Given splits are used as they are: `unmask data check` reports leaks.
    given = {name: row.split if options.official else "" for name, row in rows.items()}
    of_group = {groups[name]: split for name, split in given.items() if split}
    videos = []
    for name, row in rows.items():
        split = given[name] or of_group.get(groups[name]) or options.shares.split_of(groups[name])
        original = next((tie for tie in row.ties if row.label == FAKE and rows[tie].label == REAL), None)
        videos.append(
            SourceVideo(
                path=row.path,
                label=row.label,
                split=options.split or split,
                group=groups[name],
                source_video=f"{datasets[name]}-{name}",
                method=row.method,
                dataset=datasets[name],
                original=f"{datasets[original]}-{original}" if original is not None else "",
            )
        )
    return Listing.of("folder", root, videos, {})


def _of_table(root: Path) -> dict[str, _Row]:
    file = root / TABLE
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened)
            table, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LayoutError(f"{file}: cannot be read: {error}") from error
    if missing := {"file", "label"} - set(columns):
        raise LayoutError(
            f"{file}: expected columns file and label, {' and '.join(sorted(missing))} is not among {columns}"
        )
    if not table:
        raise LayoutError(f"{file}: has no rows")
    names = {row["file"]: name for row, name in zip(table, _names([row["file"] for row in table]), strict=True)}
    if len(names) < len(table):
        raise LayoutError(f"{file}: {Counter(row['file'] for row in table).most_common(1)[0][0]} is listed twice")
    # A real's row may name its fake: then the fake is connected to it.
    made_from = {row["pair"]: row["file"] for row in table if row.get("pair") and _label(row, file) == REAL}
    rows = {}
    for row in table:
        method, group, pair, split, dataset = ((row.get(column) or "").strip() for column in _COLUMNS)
        pair = pair or made_from.get(row["file"], "")
        if pair and pair not in names:
            raise LayoutError(f"{file}: {row['file']} has the pair {pair}, which is not a file in the table")
        label = _label(row, file)
        rows[names[row["file"]]] = _Row(
            path=root / row["file"],
            label=label,
            method=(method or "fake") if label == FAKE else "",
            ties=(names[pair],) if pair else (),
            group=group,
            split=split,
            dataset=dataset,
        )
    return rows


def _label(row: dict[str, str], file: Path) -> int:
    text = (row["label"] or "").strip().lower()
    label = LABELS.get(text, int(text) if text in ("0", "1") else None)
    if label is None:
        raise LayoutError(f"{file}: {row['file']} has the label {row['label']!r}, expected real or fake")
    return label


def _of_folders(root: Path) -> dict[str, _Row]:
    clips = {kind: list(walk_clips(root / kind, ())) if (root / kind).is_dir() else [] for kind in ("real", "fake")}
    paths = [*clips["real"], *clips["fake"]]
    if not paths:
        raise LayoutError(f"expected videos, pictures or folders of frames in {root / 'real'} and {root / 'fake'}")
    names = dict(zip(paths, _names([path.relative_to(root).as_posix() for path in paths]), strict=True))
    by_stem = {clip_name(path): names[path] for path in clips["real"]}
    rows = {names[path]: _Row(path, REAL, "", ()) for path in clips["real"]}
    # Fakes of one name share one original, even if it is missing.
    first: dict[str, str] = {}
    for path in clips["fake"]:
        folders = path.relative_to(root / "fake").parts[:-1]
        ties = _reals_in(clip_name(path), by_stem)
        same = first.setdefault(clip_name(path), names[path])
        rows[names[path]] = _Row(path, FAKE, "/".join(folders) or "fake", (*ties, same))
    return rows


def _all_real(root: Path) -> dict[str, _Row]:
    paths = list(walk_clips(root, ()))
    if not paths:
        raise LayoutError(f"expected videos, pictures or folders of frames in {root}; {what_is_in(root)}")
    names = _names([path.relative_to(root).as_posix() for path in paths])
    return {name: _Row(path, REAL, "", ()) for name, path in zip(names, paths, strict=True)}


def _reals_in(stem: str, reals: dict[str, str]) -> tuple[str, ...]:
    """The reals named by a fake's name: by its beginning and by the rest."""
    if stem in reals:
        return (reals[stem],)
    for at in (i for i in range(len(stem) - 1, 0, -1) if stem[i] == "_"):
        if stem[:at] in reals:
            rest = stem[at + 1 :]
            return (reals[stem[:at]], reals[rest]) if rest in reals else (reals[stem[:at]],)
    return ()


def _names(files: list[str]) -> list[str]:
    """Files without their suffixes, except where names would collide."""
    bare = [str(Path(file).with_name(clip_name(Path(file)))) for file in files]
    times = Counter(bare)
    return [name if times[name] == 1 else file for name, file in zip(bare, files, strict=True)]
