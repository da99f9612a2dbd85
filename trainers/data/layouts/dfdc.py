"""The Deepfake Detection Challenge: the training set (Dolhansky et al., arXiv 2006.07397) and its preview (1910.08854).

The whole set, or any of its parts, or a part alone:

    dfdc_train_part_N/metadata.json              {NAME: {"label": "REAL" or "FAKE", "split", "original"}}
    dfdc_train_part_N/NAME

The group is the original video's name. All of it is labelled train, so validation and test videos are split off by a
hash of the group. An actor may be in several groups: the set does not name its actors.

The preview:

    dataset.json                                 {PATH: {"label": "real" or "fake", "set", "target_id", "swapped_id"}}
    original_videos/ACTOR/*.mp4, method_A/*/*/*.mp4, method_B/*/*/*.mp4

The group is the actor seen. If an entry has no `target_id`, actors are the numbers of four digits and more in
its path. Its set test is kept, validation is split off set train; a video with actors of two splits is left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from trainers.data.layouts.listing import (
    LayoutError,
    LayoutOptions,
    Listing,
    SourceVideo,
    clip_name,
    expect_file,
    what_is_in,
)
from trainers.data.layouts.splits import TRAIN, Claim, place
from trainers.data.manifest import FAKE, REAL

_LABELS = {"real": REAL, "fake": FAKE}


def read(root: Path, options: LayoutOptions) -> Listing:
    """The videos of DFDC.

    Raises:
        LayoutError: no metadata.json where one is expected, or it is malformed.
    """
    parts = [root] if (root / "metadata.json").is_file() else sorted(root.glob("dfdc_train_part_*"))
    if not parts:
        raise LayoutError(f"expected metadata.json or folders dfdc_train_part_N in {root}; {what_is_in(root)}")
    dropped: Counter[str] = Counter()
    dataset = options.dataset or "dfdc"
    rows: list[tuple[Path, int, str, str | None]] = []  # clip, label, original, official split
    for part in parts:
        existing = {path.name for path in part.iterdir()} if part.is_dir() else set()
        for name, facts in _entries(expect_file(part / "metadata.json")):
            if name not in existing:
                dropped["in metadata.json, but missing"] += 1
                continue
            official = str(facts.get("split") or TRAIN) if options.official else TRAIN
            original = Path(str(facts.get("original") or "")).stem
            rows.append((part / name, _label(facts, name), original, None if official == TRAIN else official))
    groups = [original or clip_name(clip) for clip, _, original, _ in rows]
    splits = place([Claim((g,), row[3]) for g, row in zip(groups, rows, strict=True)], options.shares)
    videos = []
    for (clip, label, original, _), group, split in zip(rows, groups, splits, strict=True):
        if (into := options.split or split) is None:
            dropped["in another list than its original"] += 1
            continue
        videos.append(
            SourceVideo(
                path=clip,
                label=label,
                split=into,
                group=group,
                source_video=clip_name(clip),
                method="dfdc" if label == FAKE else "",
                dataset=dataset,
                original=original if label == FAKE else "",
            )
        )
    return Listing.of("dfdc", root, videos, dropped)


def read_preview(root: Path, options: LayoutOptions) -> Listing:
    """The videos of the DFDC preview set.

    Raises:
        LayoutError: no dataset.json, or it is malformed.
    """
    dropped: Counter[str] = Counter()
    dataset = options.dataset or "dfdcp"
    rows: list[tuple[str, int, list[str], str | None]] = []  # path, label, actors, official split
    for name, facts in _entries(expect_file(root / "dataset.json")):
        if not (root / name).is_file():
            dropped["in dataset.json, but missing"] += 1
            continue
        actors = [str(facts[key]) for key in ("target_id", "swapped_id") if facts.get(key)]
        official = str(facts.get("set") or TRAIN) if options.official else TRAIN
        rows.append((name, _label(facts, name), actors or _actors(name), None if official == TRAIN else official))
    claims = [Claim(tuple(f"dfdcp-{actor}" for actor in actors), official) for _, _, actors, official in rows]
    videos = []
    splits = place(claims, options.shares, with_test=not options.official)
    for (name, label, _, _), claim, split in zip(rows, claims, splits, strict=True):
        if (into := options.split or split) is None:
            dropped["connects actors of two splits"] += 1
            continue
        videos.append(
            SourceVideo(
                path=root / name,
                label=label,
                split=into,
                group=claim.identities[0],
                source_video=f"{dataset}-{clip_name(Path(name))}",
                method=name.split("/")[0] if label == FAKE else "",
                dataset=dataset,
            )
        )
    return Listing.of("dfdcp", root, videos, dropped)


def _actors(name: str) -> list[str]:
    found = list(dict.fromkeys(re.findall(r"(?<!\d)\d{4,}(?!\d)", name)))
    return found or [Path(name).stem]


def _entries(file: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        entries = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LayoutError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(entries, dict) or not all(isinstance(facts, dict) for facts in entries.values()):
        raise LayoutError(f"{file}: expected an object of video names, each with an object of properties")
    return sorted(entries.items())


def _label(facts: dict[str, Any], name: str) -> int:
    label = _LABELS.get(str(facts.get("label")).lower())
    if label is None:
        raise LayoutError(f"{name}: expected the label real or fake, got {facts.get('label')!r}")
    return label
