"""What drift is measured against, from the crops of a manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.faces.quality import MIN_QUALITY
from pipeline.verdict.evidence import LogitSums
from trainers.data.manifest import Manifest
from trainers.evaluation.crop_quality import face_width
from trainers.evaluation.items import video_numbers
from trainers.evaluation.panel import Panel
from trainers.evaluation.scoring import Progress, score_images

if TYPE_CHECKING:
    from pipeline.drift.measures import Counts
    from pipeline.types import Image


def manifest_counts(
    rows: Manifest, detector: Panel, *, backend: str = "auto", device: str = "auto", progress: Progress | None = None
) -> list[Counts]:
    """The counts of each video of a manifest, as `pipeline.drift.measures.counts_of` counts a record.

    A manifest has crops, no boxes: the width of a face follows from its landmarks, or those of an average face, and
    the crop's width in the source. Crops that serving would not score do not count. How clips end is not known.

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
        [face_width(rows.landmarks[i], stored_px[i], float(rows.source_width[i])) for i in range(len(rows))]
    )
    judged = np.isfinite(scored.logits) & (scored.quality >= MIN_QUALITY)
    videos = video_numbers(rows)[judged]
    if not len(videos):
        return []
    sums = LogitSums.of_groups(scored.logits[judged], scored.quality[judged], videos, info.calibration)
    log_odds = sums.log_odds(info.calibration)
    return [
        {
            SCORE.name: SCORE.counts(log_odds[i : i + 1]),
            QUALITY.name: QUALITY.counts(scored.quality[judged][videos == video]),
            FACE_WIDTH.name: FACE_WIDTH.counts(width_px[judged][videos == video]),
        }
        for i, video in enumerate(np.unique(videos))
    ]
