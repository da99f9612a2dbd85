"""Checks of a manifest: splits that share no identity, video or picture, and columns with valid values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from models.cores import available_cores
from pipeline.types import Image
from trainers.data.actors import PUT_ASIDE
from trainers.data.duplicates import Hashes, difference_hash, near, pixel_hash, same_shape, small_copy
from trainers.data.images import ImageError, ImageStore
from trainers.data.manifest import FAKE, LABELS, REAL, Manifest

EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of violation or warning.

    Attributes:
        kind: short name: `group_in_two_splits`.
        message: what is wrong, as text.
        count: how often.
        examples: up to `EXAMPLES` of them.
    """

    kind: str
    message: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """Rows of one split, dataset and method (empty: the real ones)."""

    split: str
    dataset: str
    method: str
    images: int
    videos: int
    groups: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found.

    Attributes:
        rows: of the manifest.
        images: whether the pictures were checked.
        violations: problems that make the manifest unfit; empty if it is fit.
        warnings: findings that may be fine, but should be known.
        tallies: counts by split, dataset and method.
    """

    rows: int
    images: bool
    violations: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    tallies: tuple[Tally, ...]

    @property
    def passed(self) -> bool:
        """Whether there are no violations."""
        return not self.violations


def check(
    manifest: Manifest,
    images: bool = True,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Look for leaks between splits, and for invalid rows.

    Args:
        manifest: the table.
        images: also read and decode each picture: whether it exists, and whether two splits share one (by a hash of
            the decoded pixels; nearly the same ones, by a perceptual hash, are a warning).
        workers: threads that decode; one per core by default.
        progress: called with the pictures read so far and all of them.
    """
    violations = [*_leaks(manifest), *_contradictions(manifest), *_bad_columns(manifest), *_bad_pairs(manifest)]
    warnings: list[Finding] = [*_shared_actors(manifest)]
    if images:
        looks = _looked_at(manifest, workers or available_cores(), progress)
        violations += _bad_images(manifest, looks)
        violations += _shared_content(manifest, looks)
        warnings += _content_warnings(manifest, looks)
    return CheckReport(len(manifest), images, tuple(violations), tuple(warnings), tallies(manifest))


def _finding(kind: str, message: str, examples: Iterable[str]) -> Iterator[Finding]:
    found = list(examples)
    if found:
        yield Finding(kind, message, len(found), tuple(found[:EXAMPLES]))


def _by(keys: Iterable[Any], values: Iterable[Any]) -> dict[Any, set[Any]]:
    found: dict[Any, set[Any]] = defaultdict(set)
    for key, value in zip(keys, values, strict=True):
        found[key].add(value)
    return found


def _leaks(manifest: Manifest) -> Iterator[Finding]:
    for kind, what, column in (
        ("group_in_two_splits", "groups (identities or original videos)", manifest.group),
        ("source_video_in_two_splits", "source videos", manifest.source_video),
    ):
        yield from _finding(
            kind,
            f"{what} in more than one split",
            (
                f"{key}: {', '.join(sorted(splits))}"
                for key, splits in _by(column.tolist(), manifest.split.tolist()).items()
                if len(splits) > 1 and key
            ),
        )


def _shared_actors(manifest: Manifest) -> Iterator[Finding]:
    """A warning, not a violation: many sets' own splits share actors, and `unseen` rows are reported by themselves."""
    by_actor = _by(manifest.actor.tolist(), manifest.split.tolist())
    yield from _finding(
        "actor_in_two_splits",
        "actors in more than one split: figures on them are too good (`unmask data actors --unseen` puts rows aside)",
        (
            f"{actor}: {', '.join(sorted(splits - {PUT_ASIDE}))}"
            for actor, splits in by_actor.items()
            if actor and len(splits - {PUT_ASIDE}) > 1
        ),
    )


def _contradictions(manifest: Manifest) -> Iterator[Finding]:
    videos = list(zip(manifest.dataset.tolist(), manifest.source_video.tolist(), strict=True))
    for kind, what, column in (
        ("video_with_two_labels", "labels", manifest.label),
        ("video_in_two_groups", "groups", manifest.group),
    ):
        yield from _finding(
            kind,
            f"source videos with more than one of: {what}",
            (
                f"{video} of {dataset}: {', '.join(sorted(map(str, values)))}"
                for (dataset, video), values in _by(videos, column.tolist()).items()
                if len(values) > 1
            ),
        )
    paths, times = np.unique(manifest.path, return_counts=True)
    yield from _finding("path_twice", "paths in more than one row", paths[times > 1].tolist())


def _bad_columns(manifest: Manifest) -> Iterator[Finding]:
    names = {value: name for name, value in LABELS.items()}
    for column in ("split", "group", "source_video", "dataset"):
        empty = getattr(manifest, column) == ""
        yield from _finding(f"empty_{column}", f"rows without {column}", manifest.path[empty].tolist())
    bad = ~np.isin(manifest.label, (REAL, FAKE))
    yield from _finding("bad_label", "rows whose label is neither real nor fake", manifest.path[bad].tolist())
    bad = (manifest.label == FAKE) == (manifest.method == "")
    yield from _finding(
        "method_against_label",
        "fakes without a method, or reals with one",
        (
            f"{manifest.path[i]}: {names.get(int(manifest.label[i]), '?')}, method {str(manifest.method[i])!r}"
            for i in np.flatnonzero(bad)
        ),
    )
    bad = np.isfinite(manifest.source_width) & (manifest.source_width < 1)
    yield from _finding("bad_source_width", "source widths below one pixel", manifest.path[bad].tolist())


def _bad_pairs(manifest: Manifest) -> Iterator[Finding]:
    row_of = {path: i for i, path in enumerate(manifest.path.tolist())}
    found: dict[str, list[str]] = defaultdict(list)
    for i in np.flatnonzero(manifest.pair != "").tolist():
        path, pair = str(manifest.path[i]), str(manifest.pair[i])
        j = row_of.get(pair)
        if manifest.label[i] != FAKE:
            found["pair_of_a_real"].append(f"{path}: {pair}")
        elif j is None:
            found["pair_missing"].append(f"{path}: {pair}")
        elif manifest.label[j] != REAL:
            found["pair_not_real"].append(f"{path}: {pair}")
        elif manifest.group[i] != manifest.group[j]:
            found["pair_in_other_group"].append(f"{path}: {manifest.group[i]} and {manifest.group[j]}")
        elif manifest.split[i] != manifest.split[j]:
            found["pair_in_other_split"].append(f"{path}: {manifest.split[i]} and {manifest.split[j]}")
    messages = {
        "pair_of_a_real": "real rows with a pair: only fakes have one",
        "pair_missing": "pairs that are not in the manifest",
        "pair_not_real": "pairs that are not real rows",
        "pair_in_other_group": "pairs in another group",
        "pair_in_other_split": "pairs in another split",
    }
    for kind, message in messages.items():
        yield from _finding(kind, message, found[kind])


@dataclass(frozen=True, slots=True)
class _Look:
    """Result of decoding a picture; only `error` if it failed."""

    error: str = ""
    pixels: bytes = b""
    perceptual: int = 0
    small: Image = field(default_factory=lambda: np.zeros(0, np.uint8))
    size: tuple[int, int] = (0, 0)  # height, width


def _looked_at(manifest: Manifest, workers: int, progress: Callable[[int, int], None] | None) -> list[_Look]:
    store = ImageStore(manifest.root)

    def look(path: str) -> _Look:
        try:
            image = store.load(path)
        except ImageError as error:
            return _Look(error=str(error))
        height, width = image.shape[:2]
        return _Look("", pixel_hash(image), difference_hash(image), small_copy(image), (height, width))

    looks: list[_Look] = []
    # Opening a shard takes a lock, so they are indexed one after the other for any number of threads.
    with ThreadPoolExecutor(workers) as pool:
        for number, result in enumerate(pool.map(look, manifest.path.tolist()), 1):
            looks.append(result)
            if progress is not None and (number % 256 == 0 or number == len(manifest)):
                progress(number, len(manifest))
    return looks


def _bad_images(manifest: Manifest, looks: list[_Look]) -> Iterator[Finding]:
    yield from _finding(
        "unreadable_image",
        "pictures that are missing or cannot be decoded",
        (look.error for look in looks if look.error),
    )
    outside = []
    for i in np.flatnonzero(np.isfinite(manifest.landmarks).all(axis=(1, 2))).tolist():
        height, width = looks[i].size
        # A face may be cut off by the picture's edge, but its middle is inside.
        x, y = manifest.landmarks[i].mean(axis=0)
        if not looks[i].error and not (0 <= x <= width and 0 <= y <= height):
            outside.append(f"{manifest.path[i]}: middle of the landmarks at {x:.0f}, {y:.0f} of {width} x {height} px")
    yield from _finding("landmarks_outside", "landmarks outside of their picture", outside)


def _shared_content(manifest: Manifest, looks: list[_Look]) -> Iterator[Finding]:
    rows: dict[bytes, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        if not look.error:
            rows[look.pixels].append(i)
    shared = (same for same in rows.values() if len(set(manifest.split[same].tolist())) > 1)
    yield from _finding(
        "content_in_two_splits",
        "pictures, by a hash of their decoded pixels, in more than one split",
        (" = ".join(f"{manifest.path[i]} ({manifest.split[i]})" for i in same[:4]) for same in shared),
    )


def _content_warnings(manifest: Manifest, looks: list[_Look]) -> Iterator[Finding]:
    rows: dict[bytes, list[int]] = defaultdict(list)
    for i, look in enumerate(looks):
        if not look.error:
            rows[look.pixels].append(i)
    yield from _finding(
        "content_with_two_labels",
        "pictures labelled real in one row and fake in another",
        (
            " = ".join(str(manifest.path[i]) for i in same[:4])
            for same in rows.values()
            if len(set(manifest.label[same].tolist())) > 1
        ),
    )
    yield from _near_duplicates(manifest, looks)
    yield from _finding(
        "not_square",
        "pictures that are not square, as crops should be",
        (
            f"{manifest.path[i]}: {look.size[1]} x {look.size[0]} px"
            for i, look in enumerate(looks)
            if look.size[0] != look.size[1]
        ),
    )


def _near_duplicates(manifest: Manifest, looks: list[_Look]) -> Iterator[Finding]:
    hashes: Hashes = np.array([look.perceptual for look in looks], np.uint64)
    sound: npt.NDArray[np.bool_] = np.array([not look.error for look in looks], bool)
    found: list[str] = []
    for first, second in combinations(sorted(set(manifest.split.tolist())), 2):
        before, after = (np.flatnonzero(sound & (manifest.split == split)) for split in (first, second))
        for j, place in zip(after.tolist(), near(hashes[before], hashes[after]).tolist(), strict=True):
            i = int(before[place]) if place >= 0 else j
            # Equal pixels are a violation, and reported there.
            if looks[i].pixels != looks[j].pixels and same_shape(looks[i].small, looks[j].small):
                found.append(f"{manifest.path[i]} ({first}) ~ {manifest.path[j]} ({second})")
    yield from _finding(
        "near_duplicates", "nearly equal pictures (by difference hash and small copy) in two splits", found
    )


def tallies(manifest: Manifest) -> tuple[Tally, ...]:
    """Counts by split, dataset and method."""
    rows: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    columns = (manifest.split, manifest.dataset, manifest.method)
    for i, key in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        rows[key].append(i)
    return tuple(
        Tally(
            *key,
            images=len(which),
            videos=len(set(manifest.source_video[which].tolist())),
            groups=len(set(manifest.group[which].tolist())),
        )
        for key, which in sorted(rows.items())
    )
