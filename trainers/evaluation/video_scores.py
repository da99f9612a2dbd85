"""The score of each video, kept in reports so that two detectors can be compared over the same videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.data.manifest import Manifest
from trainers.evaluation.items import Items
from trainers.metrics import video_index


@dataclass(frozen=True, slots=True)
class VideoScores:
    """P(fake) of V scored videos, columnar, in the order of their first rows.

    Attributes:
        datasets: names.
        dataset: [V], index into `datasets`.
        video: [V], number of the video in the set; one without a score has no entry.
        group: [V], number of the group whose videos are not independent.
        label: [V], 0 real and 1 fake.
        probability: [V].
    """

    datasets: list[str]
    dataset: list[int]
    video: list[int]
    group: list[int]
    label: list[int]
    probability: list[float]


def video_scores(videos: Items | None, rows: Manifest) -> VideoScores | None:
    """The scores of the videos of a set's rows; None without videos."""
    if videos is None:
        return None
    numbers = video_index(rows.dataset.tolist(), rows.source_video.tolist(), rows.path.tolist())
    _, first = np.unique(numbers, return_index=True)
    names, dataset = np.unique(videos.dataset, return_inverse=True)
    _, groups = np.unique(np.stack([rows.dataset, rows.group]), axis=1, return_inverse=True)
    return VideoScores(
        datasets=names.tolist(),
        dataset=dataset.tolist(),
        video=videos.video.tolist(),
        group=groups.reshape(-1)[first[videos.video]].tolist(),
        label=videos.label.tolist(),
        # Nine digits restore a float32 exactly.
        probability=[float(f"{chance:.9g}") for chance in videos.probability.tolist()],
    )
