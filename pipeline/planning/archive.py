"""An archive that is judged once by `unmask archive`: worker-hours, workers for a deadline, share of a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.errors import UnmaskError
from pipeline.planning.figures import Figures
from pipeline.planning.resources import Prices

# Of pipeline.archive.plan: a part has at most 500 files, a 64th of all.
_PART_FILES, _PARTS = 500, 64


class ArchiveError(UnmaskError):
    """The deadline cannot be held."""


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What an archive takes.

    Attributes:
        worker_hours: of one worker as it was measured; of all of them together.
        workers: that hold the deadline; 1 without one.
        hours: from start to end, with the wait for the last part.
        bytes: that are read.
        output_bytes: of the records.
        cost: at the given prices; None without the price of a worker-hour.
        covered: share of the archive that the budget pays for; None without a budget.
    """

    hours_of_video: float
    files: int
    worker_hours: float
    workers: int
    hours: float
    bytes: float
    output_bytes: float
    cost: float | None
    cost_archive_hour: float | None
    covered: float | None


def plan_archive(
    figures: Figures,
    hours: float,
    files: int | None,
    *,
    within_h: float | None = None,
    prices: Prices | None = None,
    budget: float | None = None,
) -> ArchivePlan:
    """What it takes to judge an archive once.

    Args:
        hours: of video.
        files: None: each is as long as the measured clip.
        within_h: deadline.
        budget: in the prices' currency.

    Raises:
        ValueError: no video, or a budget without the price of a worker-hour.
        ArchiveError: the deadline is shorter than the last part takes.
    """
    prices = prices or Prices()
    if hours <= 0 or (files is not None and files < 1):
        raise ValueError("an archive needs hours above 0 and at least one file")
    if budget is not None and prices.worker_hour is None:
        raise ValueError("a budget needs --price-worker-hour")
    count = files or max(1, round(hours * 3600 / figures.clip_s))
    video_s = hours * 3600 / count
    each_h = 1 / figures.tasks_s("video", video_s) / 3600
    worker_hours = each_h * count
    # When all parts are given out, a worker is alone with the last one: half a part on average, a whole one at worst.
    part_files = min(_PART_FILES, math.ceil(count / _PARTS))
    tail_h = part_files * each_h
    workers = 1
    if within_h is not None:
        if within_h <= tail_h:
            raise ArchiveError(
                f"the last part takes {tail_h:.2f} hours by itself: give more time than that, or smaller parts "
                "(unmask archive --part-files)"
            )
        workers = math.ceil(worker_hours / (within_h - tail_h))
    read = hours * 3600 * figures.sizes.clip / figures.clip_s
    cost = None
    if prices.worker_hour is not None:
        cost = worker_hours * prices.worker_hour + read / 1e9 * (prices.gb or 0.0)
    return ArchivePlan(
        hours_of_video=hours,
        files=count,
        worker_hours=worker_hours,
        workers=workers,
        hours=worker_hours / workers + (tail_h if workers > 1 else 0.0),
        bytes=read,
        output_bytes=count * figures.sizes.record(video_s * figures.fps),
        cost=cost,
        cost_archive_hour=None if cost is None else cost / hours,
        covered=None if budget is None or cost is None else min(1.0, budget / cost) if cost else 1.0,
    )
