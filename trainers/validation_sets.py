"""The small sets that a run is validated on, made once from the selection half of a split.

Three kinds: real fakes, original and compressed, pseudo-fakes of every kind, and degraded reals, none of which should
be called fake.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.faces.crop import resized
from pipeline.types import Image, Ints
from trainers.augment import degrade
from trainers.augment.autoencoders import AutoencodersMissingError
from trainers.augment.blend_config import BlendConfig
from trainers.augment.outline import template_landmarks
from trainers.augment.pseudo_fakes import KINDS, Face, make
from trainers.augment.quality import REFERENCE_PX
from trainers.config import SettingError, ValidationConfig
from trainers.data.dense_store import DenseStore
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, REAL, Manifest, Strings

# From a crop, its length scale and the number of its row to the crop that is scored.
Transform = Callable[[Image, float, int], Image]

# Sets of crops made of the same rows; "clean" as stored.
CROP_SETS: dict[str, Transform] = {
    "clean": lambda image, scale, row: image,
    "crf35": lambda image, scale, row: degrade.h264(image, 35),
    "half": lambda image, scale, row: degrade.resize(image, 0.5),
}
# Strengths in px of a crop of 224 px. The first three count in the selection.
DEGRADED: dict[str, Transform] = {
    "blur3": lambda image, scale, row: degrade.blur(image, 3 * scale),
    "blur5": lambda image, scale, row: degrade.blur(image, 5 * scale),
    "blur8": lambda image, scale, row: degrade.blur(image, 8 * scale),
    # Directions in steps of the golden angle: evenly spread for any number of rows.
    "motion": lambda image, scale, row: degrade.motion_blur(image, 15 * scale, row * 137.5 % 180),
    "noise": lambda image, scale, row: degrade.noise(image, 25, np.random.default_rng(row)),
    "mosaic": lambda image, scale, row: degrade.mosaic(image, 6 * scale),
}
BLURRED = ("blur3", "blur5", "blur8")
_NEEDS_VIDEO = ("crf35", "videos_crf40")


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """Crops at the network's size, ready to be scored.

    Attributes:
        pixels: uint8 [N, S, S, 3].
        label: int8 [N].
        video: int64 [N]: crops of one number are averaged before they are judged.
        selects: whether it counts in the mean.
        measure: AUC; or how many of the reals are called fake, and how many of the fakes, at the clean set's threshold.
    """

    name: str
    pixels: Image
    label: npt.NDArray[np.int8]
    video: npt.NDArray[np.int64]
    selects: bool = True
    measure: Literal["auc", "alarms"] = "auc"


def validation_sets(
    manifest: Manifest,
    config: ValidationConfig,
    size_px: int,
    *,
    trained: Collection[str] | None = None,
    blend: BlendConfig | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[ScoredSet]:
    """The sets of a run, made once; empty if the manifest has no validation rows.

    Sets that cannot be made here (H.264 without PyAV, a pseudo-fake kind whose autoencoders are missing) are left out;
    `selection` is then the mean of fewer.

    Args:
        manifest: all of the run's data.
        config: which sets, and how large.
        size_px: side of the network's input.
        trained: names of the pairs that the run trains on. Pseudo-fakes of other kinds are named `unseen_KIND`.
        blend: how pseudo-fakes are made.
        say: called with a line for each set that is left out.

    Raises:
        SettingError: no such kind of pseudo-fake.
        trainers.data.images.ImageError: an image is missing or damaged.
        trainers.data.dense_store.DenseLandmarksError: the manifest's dense landmarks cannot be read.
    """
    if unknown := sorted(set(config.kinds) - set(KINDS)):
        raise SettingError(f"no pseudo-fake kind {', '.join(unknown)}; available: {', '.join(KINDS)}")

    def possible(name: str) -> bool:
        if name not in _NEEDS_VIDEO or find_spec("av") is not None:
            return True
        say(f"validation without {name}: PyAV is not installed")
        return False

    rows = manifest.where(split=config.split).halves()[0]
    if config.unseen_actors:
        rows = without_actors_of(rows, manifest.take(manifest.split != config.split))
    made = _Maker(ImageStore(manifest.root), size_px)
    crops = balanced(rows.where(dataset=config.crops), config.rows)
    sets: list[ScoredSet] = []
    if len(crops):
        sets += [made.crops(name, crops, change) for name, change in CROP_SETS.items() if possible(name)]
        sets += _pseudo_fakes(made, crops, config, trained, blend or BlendConfig(), say)
        few = balanced(crops, config.degraded_rows)
        if len(few):
            sets += [
                made.crops(name, few, change, selects=name in BLURRED, measure="alarms")
                for name, change in DEGRADED.items()
            ]
    for name, dataset in (("videos", config.videos), ("live_videos", config.live)):
        videos = spread(rows.where(dataset=dataset), config.video_rows)
        if len(set(videos.label.tolist())) < 2:
            continue
        sets.append(made.videos(name, videos, CROP_SETS["clean"]))
        if name == "videos" and possible("videos_crf40"):
            # Monitored, not used for selection.
            at_crf40: Transform = lambda image, scale, row: degrade.h264(image, 40)  # noqa: E731
            sets.append(made.videos("videos_crf40", videos, at_crf40, selects=False))
    return sets


def without_actors_of(rows: Manifest, others: Manifest) -> Manifest:
    """The rows of people that the other rows do not show; a dataset that would lose a whole class keeps all rows."""
    unseen = ~np.isin(_actors(rows), _actors(others))
    for dataset in np.unique(rows.dataset).tolist():
        own = rows.dataset == dataset
        if set(rows.label[own & unseen].tolist()) != set(rows.label[own].tolist()):
            unseen |= own
    return rows.take(unseen)


def balanced(rows: Manifest, count: int) -> Manifest:
    """At most `count` rows, as many of each class as the rarer one allows, always the same ones."""
    rng = np.random.default_rng(0)
    classes = [rng.permutation(np.flatnonzero(rows.label == label)) for label in (REAL, FAKE)]
    each = min(count // 2, *(len(members) for members in classes))
    return rows.take(np.sort(np.concatenate([members[:each] for members in classes])))


def spread(rows: Manifest, count: int) -> Manifest:
    """At most `count` rows, taken in turn from all videos, always the same ones."""
    if len(rows) <= count:
        return rows
    order = np.random.default_rng(0).permutation(len(rows))
    turn = np.zeros(len(rows), np.int64)
    seen: dict[int, int] = {}
    videos = _video_numbers(rows)
    for row in order.tolist():
        turn[row] = seen[int(videos[row])] = seen.get(int(videos[row]), -1) + 1
    return rows.take(np.sort(order[np.argsort(turn[order], kind="stable")][:count]))


class _Maker:
    """Makes sets of one size; each stored crop is read once."""

    def __init__(self, store: ImageStore, size_px: int) -> None:
        self.store, self.size_px = store, size_px
        self._read: dict[str, Image] = {}

    def load(self, path: str) -> Image:
        if path not in self._read:
            self._read[path] = self.store.load(path)
        return self._read[path]

    def scaled(self, image: Image) -> Image:
        return resized(image, self.size_px, "area")

    def crops(
        self,
        name: str,
        rows: Manifest,
        change: Transform,
        *,
        selects: bool = True,
        measure: Literal["auc", "alarms"] = "auc",
    ) -> ScoredSet:
        pixels = []
        for row, path in enumerate(rows.path.tolist()):
            image = self.load(path)
            pixels.append(self.scaled(change(image, image.shape[0] / REFERENCE_PX, row)))
        return ScoredSet(name, np.stack(pixels), rows.label, np.arange(len(rows)), selects, measure)

    def videos(self, name: str, rows: Manifest, change: Transform, *, selects: bool = True) -> ScoredSet:
        made = self.crops(name, rows, change, selects=selects)
        return ScoredSet(name, made.pixels, made.label, _video_numbers(rows), selects)


def _pseudo_fakes(
    made: _Maker,
    crops: Manifest,
    config: ValidationConfig,
    trained: Collection[str] | None,
    blend: BlendConfig,
    say: Callable[[str], None],
) -> list[ScoredSet]:
    """For each kind, reals of a set against pseudo-fakes made of them."""
    reals = np.flatnonzero(crops.label == REAL)
    dense = DenseStore.next_to(crops.root) if blend.dense else None
    faces: list[Face] = []
    for i in reals[: config.pseudo_rows // 2]:
        image, landmarks = made.load(str(crops.path[i])), crops.landmarks[i]
        known = bool(np.isfinite(landmarks).all())
        points = None if dense is None else dense.points(str(crops.path[i]))
        faces.append(Face(image, landmarks if known else template_landmarks(image.shape[0]), points))
    donors = _donors(crops.group[reals[: len(faces)]])
    sets = []
    for kind in (config.kinds or tuple(KINDS)) if faces else ():
        pixels, labels = [], []
        try:
            for i, (face, donor) in enumerate(zip(faces, donors, strict=True)):
                # Random numbers of this kind, which do not change when kinds are added.
                rng = np.random.default_rng((zlib.crc32(kind.encode()), i))
                pair = make(kind, face, faces[donor], rng, blend)
                pixels += [made.scaled(pair.real), made.scaled(pair.fake)]
                labels += [REAL, FAKE]
        except AutoencodersMissingError as error:
            say(f"validation without {kind}: {error}")
            continue
        name = f"pseudo_{kind}" if trained is None or kind in trained else f"unseen_{kind}"
        sets.append(ScoredSet(name, np.stack(pixels), np.array(labels, np.int8), np.arange(len(labels))))
    return sets


def _donors(groups: Strings) -> list[int]:
    """For each face the next one of another group; itself if all are of one group."""
    count = len(groups)
    return [
        next((j % count for j in range(i + 1, i + count) if groups[j % count] != groups[i]), i) for i in range(count)
    ]


def _actors(rows: Manifest) -> Strings:
    """The person seen, str [N]: the actor, or the group if unknown."""
    groups = np.char.add(np.char.add(rows.dataset, "/"), rows.group)
    return np.where(rows.actor != "", np.char.add("actor ", rows.actor), groups)


def _video_numbers(rows: Manifest) -> Ints:
    """Number of each row's video, int64 [N]; frames of one name with two labels are two videos."""
    keys = [f"{video}\0{label}" for video, label in zip(rows.source_video, rows.label, strict=True)]
    return np.unique(np.array(keys, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
