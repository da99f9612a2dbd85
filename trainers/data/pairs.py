"""The endless stream of pairs: a real and a fake of one frame, or of one group, augmented alike.

The pair at place i and its augmentation are a pure function of the seed and i. A run resumed from
step n therefore sees what the uninterrupted run would have seen, whatever the number of workers or processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.types import Floats, Image
from trainers.augment.blending import Blend, BlendConfig, transplant
from trainers.augment.outline import template_landmarks
from trainers.augment.policy import AugmentConfig, augment_pair, has_degraded_copy
from trainers.augment.pseudo_fakes import KINDS, WITH_DONOR, Face, make, require
from trainers.data.dense_store import DenseStore
from trainers.data.images import ImageStore
from trainers.data.kinds import REAL_FACE, kind_of_fake
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.data.pools import Pool, nearest_donor, shapes

SELF_BLEND = "self_blend"
# Pairs are drawn in rounds of this many, each with its exact shares.
_ROUND = 1000
# The forgery's mask is read from the difference of a pair only if the rest of the two pictures agrees.
_MASK_LIKENESS = 0.9
# Px of the input for each position of the mask: the stride of the feature map that learns it.
MASK_STRIDE = 16


@dataclass(frozen=True, slots=True)
class PairConfig:
    """Which pairs are drawn.

    Attributes:
        shares: of each kind of pseudo-fake (keys of `pseudo_fakes.KINDS`), and of the fakes of each dataset by its
            name; relative to each other.
        transplant_share: of the pairs of one frame, the share with the fake only in a part of the face.
        paired: False draws real and fake apart, and augments them apart, as a plain balanced loader would.
        balance: image: each image of a pool is drawn equally often; group: each group (identity, original video) of
            each dataset is, whatever its number of images.
        bases: datasets of the reals that pseudo-fakes are made from: relative shares; empty: all reals.
        unaligned: datasets whose fakes need no real of their group: such a fake comes with a real of another group of
            its dataset (of any, if it has none), augmented apart.
        donors: pseudo-fakes with another person's face take, from this many random faces of the same dataset, the one
            with the nearest pose and proportions.
    """

    shares: Mapping[str, float] = field(default_factory=lambda: {SELF_BLEND: 0.3, "dfdc": 0.7})
    transplant_share: float = 0.1
    paired: bool = True
    balance: Literal["image", "group"] = "image"
    bases: Mapping[str, float] = field(default_factory=dict)
    unaligned: tuple[str, ...] = ()
    donors: int = 8


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair, as rows of the manifest.

    Attributes:
        kind: of a pseudo-fake, a key of `pseudo_fakes.KINDS`; else same_frame, same_group or apart.
        real: row.
        fake: row; None if the fake is made from `real`.
        donor: row of another person's real, if a pseudo-fake needs one.
    """

    kind: str
    real: int
    fake: int | None
    donor: int | None = None


class PairPlan:
    """The pair at each place of the stream.

    Raises:
        ValueError: a share of something that is not in the manifest, no share above 0, fewer than one donor, or
            no second person for pseudo-fakes that need one.
    """

    def __init__(self, manifest: Manifest, config: PairConfig, seed: int) -> None:
        self.manifest, self.config, self.seed = manifest, config, seed
        shares = {name: share for name, share in config.shares.items() if share > 0}
        if not shares:
            raise ValueError("pairs need a share above 0")
        reals = np.flatnonzero(manifest.label == REAL)
        fakes = np.flatnonzero(manifest.label == FAKE)
        self._rows = {str(manifest.path[i]): int(i) for i in reals}
        self._reals: dict[tuple[str, str], list[int]] = defaultdict(list)
        for i in reals:
            self._reals[manifest.dataset[i], manifest.group[i]].append(int(i))
        self._all_reals = reals
        self._reals_of = {name: reals[manifest.dataset[reals] == name] for name in np.unique(manifest.dataset[reals])}
        rows: dict[str, npt.NDArray[np.int64]] = {}
        # The pseudo-fake kind of a pool; pools of datasets' fakes have none.
        self._kinds: dict[str, str] = {}
        total = sum(shares.values())
        exact: dict[str, float] = {}
        for name, share in shares.items():
            if name in KINDS:
                for pool, part, members in self._bases(name, reals):
                    rows[pool], self._kinds[pool], exact[pool] = members, name, part * share / total * _ROUND
                continue
            members = fakes[manifest.dataset[fakes] == name]
            if config.paired and name not in config.unaligned:
                members = np.array([i for i in members if self._reals.get((name, str(manifest.group[i])))], np.int64)
            rows[name], exact[name] = members, share / total * _ROUND
        for name, members in rows.items():
            if not len(members):
                raise ValueError(
                    f"share of {name!r}: the manifest has no such pairs; its datasets are: "
                    f"{', '.join(sorted(set(manifest.dataset)))}; kinds of pseudo-fakes are: {', '.join(KINDS)}"
                )
        self._counts = {name: int(value) for name, value in exact.items()}
        by_rest = sorted(exact, key=lambda name: exact[name] - self._counts[name], reverse=True)
        for name in by_rest[: _ROUND - sum(self._counts.values())]:
            self._counts[name] += 1
        self._pools = {
            name: Pool(rows[name], manifest if config.balance == "group" else None, (seed, 2, number))
            for number, name in enumerate(sorted(rows))
        }
        self._check_donors()
        self._shapes = shapes(manifest)
        self._rounds: dict[int, list[tuple[str, int]]] = {}

    def __getitem__(self, place: int) -> Pair:
        number, within = divmod(place, _ROUND)
        name, nth = self._round(number)[within]
        row = self._pools[name].row(nth)
        if (kind := self._kinds.get(name)) is not None:
            return Pair(kind, row, None, self._donor(row, place) if kind in WITH_DONOR else None)
        rng = np.random.default_rng((self.seed, 1, place))
        manifest = self.manifest
        if not self.config.paired:
            reals = np.flatnonzero((manifest.label == REAL) & (manifest.dataset == name))
            return Pair("apart", int(reals[rng.integers(len(reals))]), row)
        real = self._rows.get(str(manifest.pair[row])) if manifest.pair[row] else None
        if real is not None:
            return Pair("same_frame", real, row)
        candidates = self._reals.get((name, str(manifest.group[row])))
        if candidates:
            return Pair("same_group", candidates[rng.integers(len(candidates))], row)
        others = self._reals_of.get(name, self._all_reals)
        return Pair("apart", int(others[rng.integers(len(others))]), row)

    @property
    def kinds(self) -> set[str]:
        """The kinds of pseudo-fakes that occur."""
        return set(self._kinds.values())

    def _bases(self, kind: str, reals: npt.NDArray[np.int64]) -> Iterator[tuple[str, float, npt.NDArray[np.int64]]]:
        """For each pool of a kind its name, its part of the kind's share, and its rows."""
        bases = {name: share for name, share in self.config.bases.items() if share > 0}
        if not bases:
            yield kind, 1.0, reals
        for name, share in bases.items():
            yield f"{kind} of {name}", share / sum(bases.values()), reals[self.manifest.dataset[reals] == name]

    def _check_donors(self) -> None:
        if self.config.donors < 1:
            raise ValueError(f"donors must be at least 1, got {self.config.donors}")
        if not self.kinds.isdisjoint(WITH_DONOR) and len(self._reals) < 2:
            raise ValueError(
                f"pseudo-fakes of the kinds {', '.join(sorted(WITH_DONOR))} need reals of at least two groups"
            )

    def _donor(self, row: int, place: int) -> int:
        """A real of another group than the row's: of the same dataset if it has one."""
        rng = np.random.default_rng((self.seed, 5, place))
        return nearest_donor(self.manifest, self._all_reals, row, self._shapes, self.config.donors, rng)

    def _round(self, number: int) -> list[tuple[str, int]]:
        """For each place of a round the pool and the draw's number within it."""
        if number not in self._rounds:
            dealt = [(name, number * count + i) for name, count in sorted(self._counts.items()) for i in range(count)]
            order = np.random.default_rng((self.seed, 3, number)).permutation(_ROUND)
            self._rounds = {number: [dealt[i] for i in order]}
        return self._rounds[number]


class PairDataset(Dataset[dict[str, Any]]):
    """Augmented pairs by their place in the stream; runs in the loader's workers."""

    def __init__(
        self,
        plan: PairPlan,
        *,
        size_px: int,
        augmentation: AugmentConfig | None = None,
        blend: BlendConfig | None = None,
    ) -> None:
        """See the configs; `size_px` is the side of the network's input.

        Raises:
            trainers.augment.autoencoders.AutoencodersMissingError: a share of `rerender` without autoencoders.
            trainers.data.dense_store.DenseLandmarksError: the manifest's dense landmarks cannot be read.
        """
        self.plan, self.size_px = plan, size_px
        self.augmentation, self.blend = augmentation or AugmentConfig(), blend or BlendConfig()
        self.store = ImageStore(plan.manifest.root)
        self.dense = DenseStore.next_to(plan.manifest.root) if self.blend.dense and plan.kinds else None
        for kind in sorted(plan.kinds):
            require(kind, self.blend)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The pair at a place.

        Returns:
            `images`, uint8 [2, S, S, 3]: real and fake; `labels`, int64 [2]; `masks`, float32 [2, S / 16, S / 16]: how
            much of each position is forged; `mask_known`, bool [2]; `kind`, int64 [2], see `trainers.data.kinds`;
            `row`, int64 [2]: rows of the manifest with the stored crops, -1 for a generated crop; `certainty`,
            float32 [2]: of the labels, see `Manifest`.
            If the pair is a real and its degraded copy (`AugmentConfig.degraded_real_share`), both labels are real
            and both masks are 0 and known.

        Raises:
            trainers.data.images.ImageError: an image is missing or damaged.
        """
        pair = self.plan[place]
        rng = np.random.default_rng((self.plan.seed, 0, place))
        seeds = [int(seed) for seed in rng.integers(1 << 62, size=2)]
        real, landmarks = self._load(pair.real)
        alike = pair.kind != "apart"
        copied = alike and has_degraded_copy(seeds[0], self.augmentation)
        fake: Image | None
        mask: Floats | None
        fake_row = -1 if pair.fake is None else pair.fake
        if copied:
            fake, fake_landmarks, mask, fake_row = None, landmarks, None, pair.real
        elif pair.fake is None:
            blend = self._pseudo_fake(pair, real, landmarks, rng)
            real, fake, mask = blend.real, blend.fake, blend.mask
            fake_landmarks = landmarks
        else:
            fake, fake_landmarks = self._load(pair.fake)
            mask = None
            if pair.kind == "same_frame" and fake.shape == real.shape:
                mask = difference_mask(real, fake)
                if rng.random() < self.plan.config.transplant_share:
                    blend = transplant(real, fake, landmarks, rng, self.blend)
                    mask = None if mask is None else mask * (blend.mask / max(float(blend.mask.max()), 1e-6))
                    fake, fake_row = blend.fake, -1
        known = copied or mask is not None
        cells = self.size_px // MASK_STRIDE
        images, moved = augment_pair(
            real,
            fake,
            (landmarks, fake_landmarks),
            self.size_px,
            (seeds[0], seeds[0 if alike else 1]),
            self.augmentation,
            mask,
        )
        masks = np.zeros((2, cells, cells), np.float32)
        if moved is not None:
            masks[1] = cv2.resize(moved, (cells, cells), interpolation=cv2.INTER_AREA)
        labels = np.array([REAL, REAL if copied else FAKE], np.int64)
        return {
            "images": images,
            "labels": labels,
            "masks": masks,
            "mask_known": np.array([True, known]),
            "kind": np.where(labels == REAL, REAL_FACE, kind_of_fake(pair.kind)),
            "row": np.array([pair.real, fake_row], np.int64),
            "certainty": self._certainty(pair, copied=copied),
        }

    def _certainty(self, pair: Pair, *, copied: bool) -> Floats:
        """Of the labels of a pair: a pseudo-fake is a fake whatever its base is."""
        known = self.plan.manifest.certainty
        fake = known[pair.real] if copied else np.float32(1) if pair.fake is None else known[pair.fake]
        return np.array([known[pair.real], fake], np.float32)

    def _pseudo_fake(self, pair: Pair, real: Image, landmarks: Floats, rng: np.random.Generator) -> Blend:
        face = Face(real, landmarks, self._dense_points(pair.real))
        donor = face
        if pair.donor is not None:
            donor = Face(*self._load(pair.donor), self._dense_points(pair.donor))
        return make(pair.kind, face, donor, rng, self.blend)

    def _dense_points(self, row: int) -> Floats | None:
        return None if self.dense is None else self.dense.points(str(self.plan.manifest.path[row]))

    def _load(self, row: int) -> tuple[Image, Floats]:
        manifest = self.plan.manifest
        image = self.store.load(str(manifest.path[row]))
        landmarks = manifest.landmarks[row]
        if not np.isfinite(landmarks).all():
            landmarks = template_landmarks(image.shape[0])
        return image, landmarks


def difference_mask(real: Image, fake: Image) -> Floats | None:
    """Where a fake differs from its real: float32 [H, W] in 0..1; None if the two do not show the same frame.

    The difference is smoothed over compression's blocks and scaled by its own upper range, so that a faint
    forgery has a mask like a strong one.
    """
    small = (64, 64)
    a, b = (
        cv2.cvtColor(cv2.resize(picture, small, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(np.float32)
        for picture in (real, fake)
    )
    a, b = a - a.mean(), b - b.mean()
    if float((a * b).sum()) < _MASK_LIKENESS * max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-6):
        return None
    difference = np.abs(real.astype(np.float32) - fake.astype(np.float32)).max(axis=2)
    smooth = cv2.GaussianBlur(difference, (0, 0), real.shape[1] / 32)
    # Below six grey levels it is compression.
    full = max(float(np.quantile(smooth, 0.95)), 6.0)
    return np.asarray(((smooth / full - 0.25) / 0.5).clip(0, 1), np.float32)


class _From(Sampler[list[int]]):
    """Places of the batches of one process, from a given batch on."""

    def __init__(self, start: int, stop: int, pairs: int, rank: int, world: int) -> None:
        self.start, self.stop, self.pairs, self.rank, self.world = start, stop, pairs, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        per_step = self.pairs * self.world
        for batch in range(self.start, self.stop):
            first = batch * per_step + self.rank * self.pairs
            yield list(range(first, first + self.pairs))

    def __len__(self) -> int:
        return self.stop - self.start


def pair_loader(
    dataset: PairDataset, *, batch_size: int, start: int, stop: int, workers: int, rank: int = 0, world: int = 1
) -> DataLoader[dict[str, Tensor]]:
    """Batches `start` to `stop` of the stream for one of `world` processes.

    Args:
        dataset: the pairs.
        batch_size: images of a batch in one process; a pair has two.
        start: first batch.
        stop: batch after the last one.
        workers: processes that load; 0 loads in this one.
        rank: of this process.
        world: processes that train together.

    Returns:
        Batches of `images`, uint8 [B, 3, S, S] in channels_last; `labels`, int64 [B]; `masks`, float32 [B, S / 16,
        S / 16]; `mask_known`, bool [B]; `kind` and `row`, int64 [B]; `certainty`, float32 [B].
    """
    return DataLoader(
        dataset,
        batch_sampler=_From(start, stop, batch_size // 2, rank, world),
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_single_threaded if workers else None,
        # Not fork: OpenCV's and OpenMP's threads do not survive it, and the first call in the child blocks forever.
        multiprocessing_context="forkserver" if workers else None,
        # More batches ahead do not help: a worker that falls behind stays behind.
        prefetch_factor=4 if workers else None,
    )


def _collate(pairs: list[dict[str, Any]]) -> dict[str, Tensor]:
    batch = {name: torch.from_numpy(np.concatenate([pair[name] for pair in pairs])) for name in pairs[0]}
    # NHWC in memory seen as NCHW: channels_last without a copy.
    batch["images"] = batch["images"].permute(0, 3, 1, 2)
    return batch


def _single_threaded(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
