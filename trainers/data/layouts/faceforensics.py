"""FaceForensics++ (Roessler et al., ICCV 2019) in the layout of its download script.

    original_sequences/{youtube,actors}/COMPRESSION/videos/*.mp4
    manipulated_sequences/METHOD/COMPRESSION/videos/TARGET_SOURCE.mp4
    train.json, val.json, test.json

COMPRESSION is raw (older copies: c0), c23 or c40. Folders of frames (`frames/NAME/*.png`) work as well as videos. The
three lists hold pairs of identities; each pair is a group, and a fake is within one. The actors of DeepFakeDetection
have no official split: they are split by a hash of the actor, and fakes that connect actors of two splits are
left out. Its originals are named ACTOR__SCENE, its fakes TARGET_SOURCE__SCENE__ID.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainers.data.layouts.listing import (
    LayoutError,
    LayoutOptions,
    Listing,
    SourceVideo,
    clip_name,
    clips_in,
    expect_file,
    expect_folder,
    what_is_in,
)
from trainers.data.layouts.splits import Claim, connected, place
from trainers.data.manifest import FAKE, REAL

ACTORS_METHOD = "DeepFakeDetection"
_LISTS = ("train", "val", "test")
_FOLDERS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}


def read(root: Path, options: LayoutOptions) -> Listing:
    """The videos of FaceForensics++.

    Raises:
        LayoutError: folders or lists are missing.
    """
    methods = _methods(root, options)
    videos: list[SourceVideo] = []
    dropped: Counter[str] = Counter()
    if of_youtube := [method for method in methods if method != ACTORS_METHOD]:
        videos += _youtube(root, of_youtube, options, dropped)
    if ACTORS_METHOD in methods:
        videos += _actors(root, options, dropped)
    return Listing.of("faceforensics", root, videos, dropped)


def _methods(root: Path, options: LayoutOptions) -> list[str]:
    folder = expect_folder(root / "manipulated_sequences")
    existing = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    if options.methods:
        return [expect_folder(folder / method).name for method in options.methods]
    found = [m for m in existing if any((folder / m / c).is_dir() for c in _FOLDERS[options.compression])]
    if not found:
        raise LayoutError(f"expected METHOD/{options.compression} in {folder}; {what_is_in(folder)}")
    return found


def _clips(folder: Path, options: LayoutOptions) -> list[Path]:
    names = _FOLDERS[options.compression]
    return clips_in(next((folder / name for name in names if (folder / name).is_dir()), folder / names[0]))


def _youtube(root: Path, methods: list[str], options: LayoutOptions, dropped: Counter[str]) -> list[SourceVideo]:
    reals = _clips(root / "original_sequences" / "youtube", options)
    fakes = [(method, clip) for method in methods for clip in _clips(root / "manipulated_sequences" / method, options)]
    if options.official:
        pairs = identity_pairs(root)
    else:
        edges = [clip_name(clip).split("_") for _, clip in fakes] + [[clip_name(clip)] for clip in reals]
        pairs = IdentityPairs(connected(edges), {})
    rows = [("", clip) for clip in reals] + fakes
    known = []
    for method, clip in rows:
        identities = clip_name(clip).split("_")
        if not all(identity in pairs.members for identity in identities):
            dropped["not in train.json, val.json or test.json"] += 1
        elif len({pairs.members[identity] for identity in identities}) > 1:
            dropped["connects two pairs of identities"] += 1
        else:
            known.append((method, clip, identities))
    claims = [Claim((pairs.group(ids[0]),), pairs.split.get(ids[0])) for _, _, ids in known]
    dataset = options.dataset or f"ffpp_{options.compression}"
    return [
        SourceVideo(
            path=clip,
            label=FAKE if method else REAL,
            split=options.split or split,
            group=pairs.group(identities[0]),
            source_video=f"{dataset}-{method or 'real'}-{clip_name(clip)}",
            method=method,
            dataset=dataset,
            original=f"{dataset}-real-{identities[0]}" if method else "",
        )
        for (method, clip, identities), split in zip(known, place(claims, options.shares), strict=True)
        # One group is one claim, so it cannot span splits.
        if split is not None
    ]


def _actors(root: Path, options: LayoutOptions, dropped: Counter[str]) -> list[SourceVideo]:
    reals = _clips(root / "original_sequences" / "actors", options)
    fakes = _clips(root / "manipulated_sequences" / ACTORS_METHOD, options)
    rows: list[tuple[Path, int, list[str], str]] = []
    for clip, label in [(clip, REAL) for clip in reals] + [(clip, FAKE) for clip in fakes]:
        named = re.fullmatch(r"(\d+)(?:_(\d+))?__(.+?)(?:__[A-Z0-9]+)?", clip_name(clip))
        if named is None or (named[2] is None) == (label == FAKE):
            dropped["not named like an actor's video"] += 1
            continue
        rows.append((clip, label, [actor for actor in named.groups()[:2] if actor], f"{named[1]}__{named[3]}"))
    claims = [Claim(tuple(f"dfd-{actor}" for actor in actors)) for _, _, actors, _ in rows]
    dataset = options.dataset or f"dfd_{options.compression}"
    found = []
    for (clip, label, actors, original), split in zip(rows, place(claims, options.shares), strict=True):
        if (into := options.split or split) is None:
            dropped["connects actors of two splits"] += 1
            continue
        kind = ACTORS_METHOD if label == FAKE else "real"
        found.append(
            SourceVideo(
                path=clip,
                label=label,
                split=into,
                group=f"dfd-{actors[0]}",
                source_video=f"{dataset}-{kind}-{clip_name(clip)}",
                method=ACTORS_METHOD if label == FAKE else "",
                dataset=dataset,
                original=f"{dataset}-real-{original}" if label == FAKE else "",
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class IdentityPairs:
    """The identities of FaceForensics++'s videos from YouTube.

    Attributes:
        members: for each identity its whole group, itself included.
        split: of each identity, if there is an official one.
    """

    members: Mapping[str, tuple[str, ...]]
    split: Mapping[str, str]

    def group(self, identity: str) -> str:
        """Name of an identity's group: the same in every set based on FaceForensics++."""
        return "ffpp-" + "_".join(self.members.get(identity, (identity,)))


def identity_pairs(root: Path) -> IdentityPairs:
    """The official splits: train.json, val.json and test.json, lists of pairs of identities.

    Raises:
        LayoutError: a list is missing or has another form.
    """
    members: dict[str, tuple[str, ...]] = {}
    split: dict[str, str] = {}
    for name in _LISTS:
        file = root / f"{name}.json"
        if not file.is_file():
            raise LayoutError(
                f"expected the official splits train.json, val.json and test.json in {root}, {file.name} is missing "
                "(they are in dataset/splits of github.com/ondyari/FaceForensics)"
            )
        try:
            pairs = json.loads(expect_file(file).read_text("utf-8"))
            for first, second in pairs:
                for identity in (first, second):
                    if not isinstance(identity, str):
                        raise TypeError(f"identities must be strings, got {identity!r}")
                    if split.setdefault(identity, name) != name:
                        raise ValueError(f"{identity} is also in {split[identity]}.json")
                    members[identity] = tuple(sorted((first, second)))
        except (OSError, ValueError, TypeError) as error:
            raise LayoutError(f"{file}: expected a list of pairs of identities: {error}") from error
    return IdentityPairs(members, split)
