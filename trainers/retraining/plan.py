"""What a retraining trains on, and how: decisions mixed with a replay of the base set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.checkpoint_info import CheckpointInfo
from models.errors import UnmaskError
from trainers.augment.autoencoders import AutoencodersMissingError
from trainers.augment.pseudo_fakes import KINDS, WITH_DONOR, require
from trainers.config import DataConfig, OptimConfig, ScheduleConfig, TrainConfig, to_json, with_settings
from trainers.data.manifest import FAKE, REAL, Manifest, join
from trainers.recipes import robust

TRAIN, VALIDATION = "train", "val"
TRAINING, HELD_OUT_DECISIONS = "training.parquet", "decisions.parquet"
# Parts of the decisions' share: fakes that people named, and pseudo-fakes made of reals that they named.
_DECIDED_FAKES = 0.7
# Rates that fine-tune; a run from pretrained weights starts at 4e-4.
_LR = 1e-4
_WARM_UP_STEPS = 20
# Passes over the decided crops of a share: more would repeat a few crops until they are learned by heart.
_MAX_REPEATS = 12


class RetrainError(UnmaskError, ValueError):
    """Nothing can be retrained; the message says why."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of a retraining.

    Attributes:
        training: replay and decisions of the split train.
        held_out: decisions of all other splits.
        replay: datasets of the replay with training rows.
        decided: datasets of the decisions.
    """

    training: Manifest
    held_out: Manifest
    replay: tuple[str, ...]
    decided: tuple[str, ...]

    @property
    def decisions(self) -> Manifest:
        """The decisions among the training rows."""
        return self.training.take(np.isin(self.training.dataset, self.decided))


def parts_of(replay: Manifest, decisions: Manifest, root: Path) -> Parts:
    """Divide the rows.

    Args:
        replay: the base set.
        decisions: what `unmask labels export` wrote.
        root: folder that the paths of the new manifests start from.

    Raises:
        RetrainError: no rows to train on; a dataset in both manifests, or named like a kind of pseudo-fakes; a crop, a
            video or a group of the decisions in two splits.
    """
    old, new = replay.where(split=TRAIN), decisions.take(decisions.split == TRAIN)
    if not len(old):
        raise RetrainError("the replay has no rows of the split train")
    if not len(new):
        raise RetrainError("the decisions have no rows of the split train")
    if shared := sorted(set(replay.dataset.tolist()) & set(decisions.dataset.tolist())):
        raise RetrainError(
            f"the dataset {shared[0]!r} is in both manifests: decisions that are replayed already are no news. "
            "Export them under another name (unmask labels export --dataset)"
        )
    if reserved := sorted(set(decisions.dataset.tolist()) & set(KINDS)):
        raise RetrainError(f"the dataset of the decisions is named like a kind of pseudo-fakes: {reserved[0]!r}")
    held_out = decisions.take(decisions.split != TRAIN)
    for what, column in (("crop", "path"), ("video", "source_video"), ("group", "group")):
        if both := sorted(set(getattr(new, column).tolist()) & set(getattr(held_out, column).tolist())):
            raise RetrainError(f"the {what} {both[0]!r} of the decisions is in two splits")
    return Parts(
        join([old, new], root),
        join([held_out], root),
        tuple(sorted(set(old.dataset.tolist()))),
        tuple(sorted(set(new.dataset.tolist()))),
    )


def config_of(
    parts: Parts,
    info: CheckpointInfo,
    *,
    samples: int,
    replay_share: float,
    seed: int,
    settings: tuple[str, ...] = (),
) -> TrainConfig:
    """The run that fine-tunes weights, without the files of its manifest and its first weights.

    Args:
        parts: the rows.
        info: of the weights.
        samples: images shown.
        replay_share: share of the pairs that the base set gives, in 0..1.
        seed: of the run.
        settings: `key=value`, applied last.

    Raises:
        RetrainError: neither decided reals nor fakes are left to train on, or a share is out of range.
        trainers.config.SettingError: a setting is wrong.
    """
    if not 0 < replay_share < 1:
        raise RetrainError(f"the share of the replay must be between 0 and 1, got {replay_share:g}")
    base = robust()
    shares, bases = _shares(parts, base, replay_share, samples)
    model = {name: value for name, value in info.config.items() if name != "mixed_precision"}
    config = replace(
        base,
        recipe="retrain",
        architecture=info.architecture,
        model=model,
        data=DataConfig(
            split=TRAIN,
            pairs=replace(base.data.pairs, shares=shares, bases=bases, unaligned=parts.decided, balance="group"),
            augment=base.data.augment,
        ),
        optim=OptimConfig(lr=_LR),
        schedule=ScheduleConfig(kind="constant", warmup_steps=_WARM_UP_STEPS, decay_samples=samples // 2),
        samples=samples,
        # A short run must not average in the weights that it started with.
        ema_decay=0.98,
        seed=seed,
    )
    return with_settings(config, settings)


def _shares(
    parts: Parts, base: TrainConfig, replay_share: float, samples: int
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Shares of the pairs, and of the datasets whose reals pseudo-fakes are made of."""
    rows = parts.training
    kinds = {name: share for name, share in base.data.pairs.shares.items() if name in KINDS and _possible(name, rows)}
    own = {
        name: share for name, share in base.data.pairs.shares.items() if name in parts.replay and _has_pairs(rows, name)
    }
    # Datasets that the recipe does not name have the mean share of those that it does.
    typical = float(np.mean(list(own.values()))) if own else 0.2
    own |= {name: typical for name in parts.replay if name not in own and _has_pairs(rows, name)}
    decided = np.isin(rows.dataset, parts.decided)
    fakes = int((decided & (rows.label == FAKE)).sum())
    reals = int((decided & (rows.label == REAL)).sum())
    if not fakes and not reals:
        raise RetrainError("the decisions have no crops of the split train")
    share = 1 - replay_share
    # Few decisions get a smaller share, so that their crops are not repeated too often.
    share = min(share, _MAX_REPEATS * (fakes + reals) / samples)
    share_of_fakes = share * (_DECIDED_FAKES if reals else 1.0) if fakes else 0.0
    total = sum(kinds.values()) + sum(own.values())
    if not total:
        raise RetrainError("the replay has no pairs of real and fake, and no reals that pseudo-fakes can be made of")
    scale = (1 - share_of_fakes) / total
    shares = {name: value * scale for name, value in {**kinds, **own}.items()}
    for name in parts.decided:
        of = int(((rows.dataset == name) & (rows.label == FAKE)).sum())
        if of:
            shares[name] = share_of_fakes * of / fakes
    sources = {name for name in parts.replay if ((rows.dataset == name) & (rows.label == REAL)).any()}
    made = sum(shares[name] for name in kinds)
    decided_reals = min(0.5, (share - share_of_fakes) / made) if reals and made else 0.0
    bases = {name: (1 - decided_reals) / len(sources) for name in sorted(sources)}
    for name in parts.decided:
        of = int(((rows.dataset == name) & (rows.label == REAL)).sum())
        if of and decided_reals:
            bases[name] = decided_reals * of / reals
    return shares, bases


def _possible(kind: str, rows: Manifest) -> bool:
    """Whether pseudo-fakes of a kind can be made of these rows here."""
    reals = rows.take(rows.label == REAL)
    if not len(reals) or (kind in WITH_DONOR and len(set(zip(reals.dataset, reals.group, strict=True))) < 2):
        return False
    try:
        require(kind, DataConfig().blend)
    except AutoencodersMissingError:
        return False
    return True


def _has_pairs(rows: Manifest, dataset: str) -> bool:
    """Whether a dataset has a fake with a real of its group."""
    inside = rows.dataset == dataset
    reals = set(rows.group[inside & (rows.label == REAL)].tolist())
    return bool(np.isin(rows.group[inside & (rows.label == FAKE)], sorted(reals)).any())


def identity_of(config: TrainConfig, parts: Parts, settings: Mapping[str, Any]) -> str:
    """A hash of everything that the result depends on: the same inputs resume the same run."""
    facts = [to_json(config), repr(sorted(settings.items()))]
    for rows in (parts.training, parts.held_out):
        # What the hash of a manifest leaves out: of which video each crop is.
        videos = sorted(zip(rows.path.tolist(), rows.source_video.tolist(), strict=True))
        facts += [rows.sha256, repr([(Path(path).name, video) for path, video in videos])]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
