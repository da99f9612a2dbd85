"""One report on a file with several video streams: as suspicious as the worst of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.checkpoint_info import Thresholds
from pipeline.clip_report import ClipReport
from pipeline.contracts import Label, Limit, LimitCode, Outcome, StreamVerdict, Verdict
from pipeline.verdict.aggregate import supported_people
from pipeline.verdict.calibration import label
from pipeline.verdict.statement import MANY_PEOPLE, extent_of

# More video streams of one file are not looked at.
MAX_STREAMS: Final = 4


@dataclass(frozen=True, slots=True)
class StreamShape:
    """What the record says of a stream besides its verdict; None where it cannot be read."""

    width: int | None = None
    height: int | None = None
    codec: str | None = None


def on_all_streams(
    reports: Sequence[ClipReport], shapes: Sequence[StreamShape], thresholds: Thresholds | None
) -> ClipReport:
    """The report on all streams of a file; of one stream, its own.

    Args:
        reports: on the streams, the largest first.
        shapes: of the streams.
        thresholds: of the weights; the people of all streams count.
    """
    if len(reports) == 1:
        return reports[0]
    numbered: list[ClipReport] = []
    tracks = 0
    for number, report in enumerate(reports):
        people = {person.track for person in report.verdict.people}
        suspicious, clearest = (
            tuple(replace(one, track=one.track + tracks) for one in portraits if one.track in people)
            for portraits in (report.suspicious, report.clearest)
        )
        verdict = _renumbered(report.verdict, number, tracks)
        numbered.append(replace(report, verdict=verdict, suspicious=suspicious, clearest=clearest))
        tracks += max(people, default=-1) + 1
    verdicts = [report.verdict for report in numbered]
    streams = [
        StreamVerdict(
            width=shape.width,
            height=shape.height,
            codec=shape.codec,
            outcome=verdict.outcome,
            probability=verdict.probability,
            error=verdict.error,
            frames_sampled=verdict.frames_sampled,
        )
        for verdict, shape in zip(verdicts, shapes, strict=True)
    ]
    whole = _combined(verdicts, streams, thresholds)
    deciding = next(report for report in numbered if report.verdict.probability == whole.probability)
    return replace(
        deciding,
        verdict=whole,
        suspicious=tuple(portrait for report in numbered for portrait in report.suspicious),
        clearest=tuple(portrait for report in numbered for portrait in report.clearest),
    )


def _renumbered(verdict: Verdict, stream: int, first_track: int) -> Verdict:
    """The same with the number of its stream, and with tracks from `first_track` on."""
    return verdict.model_copy(
        update={
            "people": [
                person.model_copy(update={"stream": stream, "track": person.track + first_track})
                for person in verdict.people
            ],
            "frames": [
                face.model_copy(update={"stream": stream, "track": face.track + first_track}) for face in verdict.frames
            ],
            "segments": [
                segment.model_copy(update={"stream": stream, "track": segment.track + first_track})
                for segment in verdict.segments
            ],
        }
    )


def _combined(verdicts: Sequence[Verdict], streams: Sequence[StreamVerdict], thresholds: Thresholds | None) -> Verdict:
    """The verdict on all streams.

    Args:
        verdicts: of the streams, the largest first, with their numbers and with tracks that differ.
        streams: what the record says of each.
        thresholds: of the weights; the number of people in all streams counts.
    """
    scored = [verdict for verdict in verdicts if verdict.outcome is Outcome.SCORED]
    base = max(scored, key=lambda verdict: verdict.probability or 0.0) if scored else verdicts[0]
    people = [person for verdict in scored for person in supported_people(verdict)]
    judged = base.label
    if base.probability is not None and len(scored) > 1:
        judged = label(base.probability, len(people), thresholds)
    segments = [segment for verdict in scored for segment in verdict.segments]
    if segments:
        judged = Label.FAKE
    not_judged = sum((Counter(verdict.not_judged) for verdict in verdicts), Counter[str]())
    durations = [verdict.duration_s for verdict in verdicts if verdict.duration_s is not None]
    duration_s = max(durations, default=None)
    judged_s = max((each.judged_s for each in verdicts if each.judged_s is not None), default=None)
    coverages = [verdict.coverage for verdict in verdicts if verdict.coverage is not None]
    return base.model_copy(
        update={
            "label": judged,
            "duration_s": duration_s,
            "frames_sampled": sum(verdict.frames_sampled for verdict in verdicts),
            "frames_scored": sum(verdict.frames_scored for verdict in verdicts),
            "people": [person for verdict in verdicts for person in verdict.people],
            "frames": [face for verdict in verdicts for face in verdict.frames],
            "segments": sorted(segments, key=lambda segment: (segment.from_s, segment.track)),
            "extent": extent_of(people, segments, judged_s, thresholds) if judged is Label.FAKE else None,
            "limits": _limits(verdicts, len(people)),
            "not_judged": dict(sorted(not_judged.items())),
            "coverage": min(coverages, key=lambda coverage: coverage.share) if coverages else None,
            "streams": list(streams),
            "elapsed_s": round(sum(verdict.elapsed_s for verdict in verdicts), 3),
        }
    )


def _limits(verdicts: Sequence[Verdict], people: int) -> list[Limit]:
    """Those of all streams, each once, those of the clip first."""
    found = dict.fromkeys(limit for verdict in verdicts for limit in verdict.limits)
    if people >= MANY_PEOPLE:
        found[Limit(code=LimitCode.MANY_PEOPLE, track=None)] = None
    return sorted(found, key=lambda limit: limit.track is not None)
