"""Figures and scenarios of tests."""

from __future__ import annotations

from typing import Any

from pipeline.planning.figures import Batch, Cost, Figures, Services, Sizes
from pipeline.planning.scenario import Fleet, Load, Scenario

SIZES = Sizes(
    record_fixed=1300, record_frame=120, segment=190_000, segment_s=2, stream_state=15_000, clip=1e6, resident=1e9
)


def figures(**changes: Any) -> Figures:
    """A worker of two cores, 0.12 CPU seconds for a clip of two seconds."""
    given: dict[str, Any] = {
        "machine": "a machine",
        "clip": "a.mp4",
        "network": "n",
        "detector": "d",
        "backend": "b",
        "device": "cpu",
        "cores": 2,
        "clips_at_once": 3,
        "efficiency": 0.95,
        "faces_a_frame": 1.0,
        "fps": 2.0,
        "clip_s": 2.0,
        "video": Cost(0.06, 0.01, 0.005, 1.2),
        "segment": Cost(0.05, 0.01, 0.005, 1.2),
        "batches": (Batch(1, 0.006, 0.006), Batch(2, 0.011, 0.011), Batch(4, 0.02, 0.02)),
        "batches_at_once": 2,
        "any_batch": False,
        "sizes": SIZES,
        "video_services": Services(0.01, 0.004, 0.002, 0.02),
        "segment_services": Services(0.01, 0.004, 0.002),
    }
    return Figures(**(given | changes))


def queue(cores: int, *, clips: int | None = None) -> Figures:
    """A pure queue: tasks take as many seconds of one core as they have seconds of video, without faces."""
    return figures(
        cores=cores,
        clips_at_once=clips or cores,
        efficiency=1.0,
        faces_a_frame=0.0,
        fps=1e-9,
        video=Cost(0, 1.0, 0, 1.0),
        segment=Cost(0, 1.0, 0, 1.0),
        batches=(),
        video_services=Services(),
        segment_services=Services(),
    )


def queueing(cores: int, load: float, *, spread: str, tasks: int, clips: int | None = None) -> Scenario:
    """Poisson arrivals with a mean service of a second, at a share `load` of the cores."""
    rate = load * cores
    return Scenario(
        queue(cores, clips=clips),
        Load(videos_s=rate, video_s=1.0, spread="exponential" if spread == "exponential" else "fixed"),
        Fleet(1, partitions=1, split_s=0, poll_s=0),
        warmup_s=100,
        duration_s=tasks / rate,
        drain_s=100,
    )
