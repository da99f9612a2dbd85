"""What drift is measured against, from the crops of a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.faces.quality import MIN_QUALITY
from pipeline.verdict.evidence import LogitSum
from trainers.data.manifest import Manifest
from trainers.evaluation.crop_quality import face_width_px
from trainers.evaluation.items import video_numbers
from trainers.evaluation.panel import Panel
from trainers.evaluation.scoring import Progress, score_images

if TYPE_CHECKING:
    from pipeline.drift.measures import Counts
    from pipeline.types import Image, Ints


def manifest_counts(
    rows: Manifest, detector: Panel, *, backend: str = "auto", device: str = "auto", progress: Progress | None = None
) -> list[Counts]:
    """The counts of each video of a manifest, as `pipeline.drift.measures.counts_of` counts a record.

    A manifest has crops, no boxes: the width of a face follows from its landmarks, or those of an average face, and
    the crop's width in the source. Quality, and with it the score, depends on how a head is turned: only crops with
    landmarks have them. Crops that serving would not score do not count. How clips end is not known.

    Args:
        rows: crops.
        detector: gives the scores, with its calibration.
        backend: that computes them.
        device: likewise.
        progress: called with the number of crops done.

    Raises:
        BackendError: the backend is not available or fails.
        DeviceError: the device does not exist.
    """
    from pipeline.drift.measures import FACE_WIDTH, QUALITY, SCORE

    stored_px = np.full(len(rows), np.nan)

    def seen(image: Image, row: int) -> Image:
        stored_px[row] = image.shape[1]
        return image

    info = detector.info
    with detector.backend(backend=backend, device=device) as opened:
        scored = score_images(opened, info.input_spec, rows, transform=seen, quality=True, progress=progress)
    width_px = np.array(
        [face_width_px(rows.landmarks[i], stored_px[i], float(rows.source_width[i])) for i in range(len(rows))]
    )
    judged = np.flatnonzero(np.isfinite(scored.logits) & (scored.quality >= MIN_QUALITY))
    has_landmarks = np.asarray(np.isfinite(rows.landmarks).all(axis=(1, 2)))
    found: list[Counts] = []
    for of in _by_video(judged, video_numbers(rows)[judged]):
        known = of[has_landmarks[of]]
        counts = {FACE_WIDTH.name: FACE_WIDTH.counts(width_px[of])}
        if len(known):
            qualities = scored.quality[known]
            log_odds = LogitSum.of(scored.logits[known], qualities, info.calibration).log_odds(info.calibration)
            counts |= {SCORE.name: SCORE.counts([log_odds]), QUALITY.name: QUALITY.counts(qualities)}
        found.append(counts)
    return found


def _by_video(rows: Ints, videos: Ints) -> list[Ints]:
    """The rows of each video."""
    order = np.argsort(videos, kind="stable")
    starts = np.unique(videos[order], return_index=True)[1]
    return [each for each in np.split(rows[order], starts[1:]) if len(each)]
