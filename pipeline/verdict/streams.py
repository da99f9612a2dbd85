"""One verdict on a file with several video streams: as suspicious as the worst of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from models.checkpoint_info import Thresholds
from pipeline.contracts import Outcome, StreamVerdict, Verdict
from pipeline.verdict.aggregate import supported_people
from pipeline.verdict.calibration import label

# More video streams of one file are not looked at.
MAX_STREAMS: Final = 4


def renumbered(verdict: Verdict, stream: int, first_track: int) -> Verdict:
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
        }
    )


def combined(verdicts: Sequence[Verdict], streams: Sequence[StreamVerdict], thresholds: Thresholds | None) -> Verdict:
    """The verdict on all streams; with one, its own.

    Args:
        verdicts: of the streams, the largest first, with their numbers and with tracks that differ.
        streams: what the record says of each.
        thresholds: of the weights; the number of people in all streams counts.
    """
    if len(verdicts) == 1:
        return verdicts[0]
    scored = [verdict for verdict in verdicts if verdict.outcome is Outcome.SCORED]
    base = max(scored, key=lambda verdict: verdict.probability or 0.0) if scored else verdicts[0]
    people = sum(len(supported_people(verdict.people, verdict.frames_sampled)) for verdict in scored)
    judged = base.label
    if base.probability is not None and len(scored) > 1:
        judged = label(base.probability, people, thresholds)
    not_judged = sum((Counter(verdict.not_judged) for verdict in verdicts), Counter[str]())
    coverages = [verdict.coverage for verdict in verdicts if verdict.coverage is not None]
    return base.model_copy(
        update={
            "label": judged,
            "duration_s": max((v.duration_s for v in verdicts if v.duration_s is not None), default=None),
            "frames_sampled": sum(verdict.frames_sampled for verdict in verdicts),
            "frames_scored": sum(verdict.frames_scored for verdict in verdicts),
            "people": [person for verdict in verdicts for person in verdict.people],
            "frames": [face for verdict in verdicts for face in verdict.frames],
            "not_judged": dict(sorted(not_judged.items())),
            "coverage": min(coverages, key=lambda coverage: coverage.share) if coverages else None,
            "streams": list(streams),
            "elapsed_s": round(sum(verdict.elapsed_s for verdict in verdicts), 3),
        }
    )
