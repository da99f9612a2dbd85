"""How far a short stretch of a real track differs from the rest by chance: the contrast that serving asks for.

Videos of any length are made from the frames of each real validation video by the circular block bootstrap (Politis,
Romano, "A circular block-resampling procedure for stationary data", 1992): blocks keep what neighbouring frames have in
common. They are judged by the serving code.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from models.architectures import load_detector
from models.calibration import Calibration
from models.checkpoint_info import FEWEST_FRAMES
from pipeline.faces.quality import MIN_QUALITY
from pipeline.verdict.evidence import LogitSum
from pipeline.verdict.segments import INDEPENDENT_S, strongest_runs
from trainers.calibration_fit import Floats64
from trainers.copies import COPIES
from trainers.data.manifest import REAL, Manifest
from trainers.evaluation.scoring import open_backend, score_images
from trainers.metrics import video_index

# Share of real tracks that a stretch alone makes fake.
FALSE_ALARMS = 0.005
# A video has a course of time from so many frames on; fewer such videos say nothing.
_FEWEST, _FEWEST_VIDEOS = 8, 4
# Frames of the longest track that is tried: 8 minutes and a half of independent frames.
_SIZES = tuple(FEWEST_FRAMES * 2**k for k in range(8))
_BLOCK = 4
_COPIES = ("clean", "crf28", "crf35", "half")
# The least of each size: those of `unmask-small`. Weights whose real stretches rarely score as fake would get
# less from a few videos, and the next video may have such a stretch: `unmask-two-stream` called one of 11 real clips of
# other sources fake at contrasts of its own.
_LEAST = (4.223, 5.021, 5.282, 5.444, 5.651, 6.105, 6.254, 6.28)

# Logits and qualities, float64 [N] each, of one video in order of time.
Sequence = tuple[Floats64, Floats64]


def scored_sequences(weights: str | Path, manifest: Manifest, device: str = "auto") -> list[Sequence]:
    """The real videos with enough frames, original and changed as in everyday clips, scored.

    Args:
        weights: a checkpoint's path or zoo name.
        manifest: rows, among them frames of videos; their order by path is that of time.
        device: see `models.precision.best_device`.
    """
    reals = manifest.take(manifest.label == REAL)
    videos = video_index(list(reals.dataset), list(reals.source_video), list(reals.path))
    _, number, count = np.unique(videos, return_inverse=True, return_counts=True)
    long = np.flatnonzero(count[number] >= _FEWEST)
    if not len(long):
        return []
    rows = reals.take(long)
    order = np.lexsort((np.array([str(path) for path in rows.path]), videos[long]))
    rows, videos = rows.take(order), videos[long][order]
    detector = load_detector(weights)
    found: list[Sequence] = []
    with open_backend(detector, device=device) as backend:
        for name in _COPIES:
            copy = COPIES[name]
            scored = score_images(
                backend, detector.info.input_spec, rows, transform=copy.change, quality=True, size=copy.size
            )
            there = np.isfinite(scored.logits) & (scored.quality >= MIN_QUALITY)
            for video in np.unique(videos):
                which = there & (videos == video)
                if which.sum() >= _FEWEST:
                    found.append((scored.logits[which].astype(np.float64), scored.quality[which].astype(np.float64)))
    return found


def contrasts(
    sequences: list[Sequence],
    calibration: Calibration,
    fake: float,
    *,
    false_alarms: float = FALSE_ALARMS,
    repeats: int = 100,
    seed: int = 0,
) -> tuple[float, ...]:
    """`Thresholds.contrast`: for tracks of 8, 16 ... 1,024 frames, such that a stretch makes few real ones fake.

    A track that is called fake as a whole needs no stretch: it does not count. No contrast is below
    those of `unmask-small`.

    Args:
        sequences: of real videos, see `scored_sequences`; too few give ().
        calibration: of the weights.
        fake: probability from which one person is called fake.
        false_alarms: share of the tracks of each length.
        repeats: tracks that are made of each video, for each length.
        seed: of the bootstrap.
    """
    if len(sequences) < _FEWEST_VIDEOS * len(_COPIES) or not 0 < fake < 1:
        return ()
    rng = np.random.default_rng(seed)
    needed = [
        max(least, float(np.quantile(_strongest(sequences, size, calibration, fake, repeats, rng), 1 - false_alarms)))
        for size, least in zip(_SIZES, _LEAST, strict=True)
    ]
    return tuple(round(float(value), 3) for value in np.maximum.accumulate(needed))


def _strongest(
    sequences: list[Sequence],
    size: int,
    calibration: Calibration,
    fake: float,
    repeats: int,
    rng: np.random.Generator,
) -> Floats64:
    """The highest contrast of each made track of `size` frames, 0 without a stretch that scores as fake."""
    log_odds = math.log(fake / (1 - fake))
    times = np.arange(size, dtype=np.float64) * INDEPENDENT_S
    highest = np.zeros(len(sequences) * repeats)
    for i in range(len(highest)):
        logits, quality = sequences[i // repeats]
        starts = rng.integers(0, len(logits), -(-size // _BLOCK))
        frames = ((starts[:, None] + np.arange(_BLOCK)) % len(logits)).ravel()[:size]
        whole = LogitSum.of(logits[frames], quality[frames], calibration)
        if whole.log_odds(calibration) >= log_odds:
            continue
        runs = strongest_runs(
            times, logits[frames], quality[frames], calibration, log_odds=log_odds, contrast=0.0, limit=1
        )
        span_s = float(times[-1])
        highest[i] = max((run.contrast(whole, span_s, calibration) for run in runs), default=0.0)
    return highest
