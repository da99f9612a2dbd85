"""What a reader of a plan must know beside its numbers."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.planning.broker import SEGMENTS, VIDEOS
from pipeline.planning.figures import Figures, Services
from pipeline.planning.replicate import Summary
from pipeline.planning.scenario import Load
from pipeline.planning.sizing import Sized, Target
from pipeline.transport.assignor import Member, share_out

# With fewer videos in all runs together, their percentiles say little: the p95 is the fifth longest of a hundred.
_FEW_VIDEOS = 100


def notes_of(figures: Figures, load: Load, sized: Sized, target: Target) -> list[str]:
    """Of a plan, whether its number of workers was searched for or given."""
    fleet, simulated, notes = sized.fleet, sized.summary, []
    if figures.video_services == Services() and figures.segment_services == Services():
        notes.append(
            "the figures have no cost of Kafka and Redis: real latencies are longer, and workers do a bit less"
        )
    if sized.offered > fleet.workers:
        notes.append(
            f"the work is that of {sized.offered:.2f} workers: more arrives than {fleet.workers} can do, "
            "and what waits grows without end or is shed"
        )
    idle = _without_partitions(fleet.workers, fleet.partitions, load) if fleet.workers > fleet.partitions else 0
    if idle:
        notes.append(
            f"more workers than partitions, {fleet.workers} and {fleet.partitions}: "
            f"{idle} {'has' if idle == 1 else 'have'} nothing to do"
        )
    if not target.held(simulated):
        notes += _missed(simulated, target)
    elif target.is_close(simulated):
        notes.append(
            f"the target is held on average of {simulated.runs} draws of ids, but the 95 % interval reaches above it: "
            "in some draws it may be missed, so choose more workers"
        )
    few = _few_videos(load, simulated, sized.duration_s)
    if few:
        notes.append(few)
    if simulated.utilisation.mean < 0.5 and sized.offered > 2:
        notes.append("partitions are filled by hashes of ids: the fullest decides the number of workers, not the mean")
    if load.streams and fleet.partitions > load.streams:
        notes.append("there are more partitions than streams: some workers have nothing to do")
    return notes


def notes_over_time(simulated: Summary, burst_p95_s: float | None, target: Target) -> list[str]:
    """Of a burst, an autoscaler or failures, against the targets of the plan."""
    notes = []
    if burst_p95_s is not None and burst_p95_s > target.p95_s:
        notes.append(f"over time, the burst does not hold --p95 {target.p95_s:g}: {burst_p95_s:.2f} s")
    if simulated.shed.mean > target.shed:
        notes.append(f"over time, --shed-max {target.shed:g} is not held: {simulated.shed.mean:.1%} are shed")
    return notes


def _missed(simulated: Summary, target: Target) -> Sequence[str]:
    notes = []
    if not simulated.latency_s:
        notes.append(f"does not hold --p95 {target.p95_s:g}: nothing was judged within the simulated time")
    for kind, found in simulated.latency_s.items():
        if found["p95"].mean > target.p95_s:
            name = "videos" if kind == "video" else "live segments"
            notes.append(f"does not hold --p95 {target.p95_s:g}: {found['p95'].mean:.2f} s for {name}")
    if simulated.shed.mean > target.shed:
        notes.append(f"does not hold --shed-max {target.shed:g}: {simulated.shed.mean:.1%} are shed")
    return notes


def _few_videos(load: Load, simulated: Summary, duration_s: float) -> str | None:
    count = load.videos_s * duration_s * simulated.runs
    if not load.videos_s or count >= _FEW_VIDEOS:
        return None
    return (
        f"videos are rare beside the streams: about {count:.0f} of them in all {simulated.runs} simulated runs, "
        "so their latencies say little; plan the videos alone for better ones"
    )


def _without_partitions(workers: int, partitions: int, load: Load) -> int:
    """Workers that get no partition of a topic that has messages."""
    both = frozenset((SEGMENTS, VIDEOS))
    members = {f"worker-{number:06d}": Member(both, frozenset(), 0) for number in range(workers)}
    shares = share_out({topic: range(partitions) for topic in (VIDEOS, SEGMENTS)}, members)
    used = {topic for topic, comes in ((SEGMENTS, load.streams), (VIDEOS, load.videos_s)) if comes}
    return sum(all(place.topic not in used for place in share) for share in shares.values())
