"""Actors: original videos that show the same person, found by face similarity.

A set that hires actors films each of them many times. Groups by original video then share people between splits, and
validation figures are too good. Embeddings only separate people for the split; none is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image
from trainers.data.images import ImageStore
from trainers.data.manifest import FAKE, REAL, Manifest, Strings

# From crops, uint8 [H, W, 3] each, to unit vectors float32 [N, D].
Embed = Callable[[list[Image]], Floats]

# Mean cosine distance up to which two clusters of videos are one person; embeddings minus their mean over all videos.
# Of DFDC's training set, which shows 486 people (Dolhansky et al., arXiv:2006.07397), 14,272 originals fall into 497
# clusters of five and more at .55, 434 at .60 and 363 at .65. Two people in one cluster cost training rows; a person in
# two clusters would be in training and in validation: of the distances around 486 clusters, the larger is safer.
SAME_PERSON = 0.6
# Split of the training rows set aside so that validation shows people that training does not.
PUT_ASIDE = "put_aside"
_BATCH = 32


@dataclass(frozen=True, slots=True)
class ActorReport:
    """The actors found.

    Attributes:
        groups: original videos that were compared.
        actors: people in them.
        shared: people seen both in training and in validation, after the split was changed.
        unseen: rows of validation, real and fake, whose person is in no training row.
        put_aside: training rows that were moved to the split `PUT_ASIDE`.
    """

    groups: int
    actors: int
    shared: int
    unseen: tuple[int, int]
    put_aside: int


def group_embeddings(
    rows: Manifest, embed: Embed, progress: Callable[[int, int], None] | None = None
) -> tuple[Strings, Floats]:
    """The mean embedding of the real crops of each group.

    Args:
        rows: of one dataset.
        embed: see `Embed`.
        progress: called with crops done and all crops.

    Returns:
        Groups, str [G], and their unit vectors float32 [G, D].

    Raises:
        trainers.data.images.ImageError: an image is missing or damaged.
    """
    reals = rows.take(rows.label == REAL)
    store = ImageStore(rows.root)
    vectors: list[Floats] = []
    for start in range(0, len(reals), _BATCH):
        vectors.append(embed([store.load(path) for path in reals.path[start : start + _BATCH].tolist()]))
        if progress is not None:
            progress(min(start + _BATCH, len(reals)), len(reals))
    groups, number = np.unique(reals.group, return_inverse=True)
    every = np.concatenate(vectors) if vectors else np.zeros((0, 1), np.float32)
    total = np.zeros((len(groups), every.shape[1]), np.float32)
    np.add.at(total, number, every)
    return groups, _unit(total)


def cluster(vectors: Floats, threshold: float = SAME_PERSON) -> npt.NDArray[np.int64]:
    """Person number of each group, int64 [G]: average linkage of cosine distances, cut at `threshold`.

    Args:
        vectors: float32 [G, D], unit vectors.
        threshold: cosine distance, 0 to 2.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    from sklearn.cluster import AgglomerativeClustering

    # Subtract the mean face: otherwise all faces look alike, and distances depend on the camera.
    centred = _unit(vectors - vectors.mean(axis=0))
    clustering = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=threshold
    )
    return np.asarray(clustering.fit_predict(centred), np.int64)


def with_actors(manifest: Manifest, dataset: str, groups: Strings, people: npt.NDArray[np.int64]) -> Manifest:
    """The manifest with `actor` filled in for the rows of a dataset.

    Args:
        manifest: all rows.
        dataset: whose groups these are.
        groups: str [G].
        people: int64 [G], see `cluster`.
    """
    names = {group: f"{dataset}-{person:04}" for group, person in zip(groups.tolist(), people.tolist(), strict=True)}
    actor = [
        names.get(group, old) if of == dataset else old
        for group, of, old in zip(
            manifest.group.tolist(), manifest.dataset.tolist(), manifest.actor.tolist(), strict=True
        )
    ]
    return replace(manifest, actor=np.array(actor, dtype=np.str_))


def put_aside(manifest: Manifest, rows: int, *, train: str = "train", validation: str = "val") -> Manifest:
    """Move training rows aside until validation has `rows` fakes and as many reals of people not in training.

    People are chosen by cost: training rows lost for each validation row gained, the cheapest first. Their
    training rows go to the split `PUT_ASIDE`; validation keeps all its rows, so earlier weights, which have not
    seen them, can still be evaluated on it.

    Args:
        manifest: with `actor`.
        rows: of each class with unseen people that validation should have; fewer if there are not enough.
        train: split that gives rows away.
        validation: split whose people must not be in `train`.
    """
    if rows <= 0:
        return manifest
    known = manifest.actor != ""
    actors, number = np.unique(manifest.actor[known], return_inverse=True)
    split, label = manifest.split[known], manifest.label[known]

    def count(which: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(number[which], minlength=len(actors))

    cost = count(split == train)
    reals, fakes = (count((split == validation) & (label == value)) for value in (REAL, FAKE))
    order = np.argsort(cost / np.maximum(reals + fakes, 1e-9), kind="stable")
    order = order[(reals + fakes)[order] > 0]
    needed = np.flatnonzero((np.cumsum(reals[order]) >= rows) & (np.cumsum(fakes[order]) >= rows))
    chosen = actors[order[: needed[0] + 1] if len(needed) else order]
    moved = np.isin(manifest.actor, chosen) & known & (manifest.split == train)
    width = max(manifest.split.dtype.itemsize // 4, len(PUT_ASIDE))
    return replace(manifest, split=np.where(moved, PUT_ASIDE, manifest.split).astype(f"<U{width}"))


def unseen(rows: Manifest, manifest: Manifest, *, train: str = "train") -> npt.NDArray[np.bool_]:
    """Which of N rows, bool [N], show a known person that no row of the split `train` of `manifest` shows."""
    seen = np.unique(manifest.actor[manifest.split == train])
    return np.asarray((rows.actor != "") & ~np.isin(rows.actor, seen))


def report(manifest: Manifest, groups: int, *, train: str = "train", validation: str = "val") -> ActorReport:
    """Counts of a manifest with actors."""
    known = manifest.actor != ""
    in_train, in_validation = (
        set(manifest.actor[known & (manifest.split == split)].tolist()) for split in (train, validation)
    )
    of_validation = manifest.take(unseen(manifest, manifest, train=train) & (manifest.split == validation))
    return ActorReport(
        groups=groups,
        actors=len(set(manifest.actor[known].tolist())),
        shared=len(in_train & in_validation),
        unseen=(int((of_validation.label == REAL).sum()), int((of_validation.label == FAKE).sum())),
        put_aside=int((manifest.split == PUT_ASIDE).sum()),
    )


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)
