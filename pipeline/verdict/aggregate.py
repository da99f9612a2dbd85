"""From the frame scores of a clip to its verdict: per person first, then the worst well-supported one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import (
    Adapted,
    Coverage,
    JudgedPart,
    Label,
    Outcome,
    Person,
    Provenance,
    ScoredFace,
    Segment,
    Verdict,
)
from pipeline.faces.flaws import flaws_text
from pipeline.types import Scores
from pipeline.verdict.calibration import label
from pipeline.verdict.coverage import MIN_COVERAGE, describe
from pipeline.verdict.evidence import LogitSum
from pipeline.verdict.segments import Run, independent_frames, stretches, strongest_runs
from pipeline.verdict.statement import evidence_of, extent_of, limits_of

# Of a track, from the log-odds and the contrast that they need.
Runs = Callable[[int, float, float], list[Run]]

# A person decides on a clip from five scored frames on (or all, in a shorter clip) that make up 15 % of the sampled
# ones: fewer are a passer-by or a false detection, and their average is noise. In an edited clip, where each shot has
# tracks of its own, nobody may reach that although faces are seen all the time: there, 15 % of the person seen longest.
SUPPORT_FRAMES = 5
SUPPORT_SHARE = 0.15
# A track in only one of several frames is unconfirmed; it is not reported as a person.
CONFIRM_FRAMES = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a clip has no score.

    Attributes:
        transient: another try may succeed.
    """

    outcome: Outcome
    error: str
    transient: bool = False


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """What is known about a clip in addition to its scores.

    Attributes:
        id: clip id of the record.
        source: path or URI as given.
        duration_s: seconds, None where unknown.
        frames_sampled: frames the reader delivered.
        faces_seen: faces found in all of them, with those too poor to be scored.
        failure: what ended the clip early, if anything did.
        elapsed_s: seconds of wall clock spent on it.
        not_judged: of the faces seen, how many have which flaw; see `pipeline.faces.flaws`.
        coverage: how much of the video could be read; None if that is unknown.
        min_coverage: share of the duration below which there is no verdict.
        pixel_aspect: see `Verdict`.
        turn: degrees clockwise by which the frames were turned to make people upright.
        adapted: see `Verdict`.
        part: likewise.
    """

    id: str
    source: str
    duration_s: float | None
    frames_sampled: int
    faces_seen: int
    failure: Failure | None
    provenance: Provenance
    elapsed_s: float
    not_judged: Mapping[str, int] = field(default_factory=dict)
    coverage: Coverage | None = None
    min_coverage: float = MIN_COVERAGE
    pixel_aspect: float = 1.0
    turn: int = 0
    adapted: Adapted | None = None
    part: JudgedPart | None = None


def support_needed(of_people: Sequence[int], frames_sampled: int, frames_scored: int) -> int:
    """Scored frames from which on a person is well supported.

    Args:
        of_people: scored frames of each person.
        frames_sampled: frames of the clip that were looked at.
        frames_scored: those of them with a scored face of any of these people.
    """
    least = max(1, min(SUPPORT_FRAMES, frames_sampled))
    needed = max(least, math.ceil(SUPPORT_SHARE * frames_sampled))
    longest = max(of_people, default=0)
    if longest < needed <= frames_scored:
        return max(least, math.ceil(SUPPORT_SHARE * longest))
    return needed


def support_of(verdict: Verdict) -> int:
    """`support_needed` of the people of a verdict."""
    return support_needed([person.frames for person in verdict.people], verdict.frames_sampled, verdict.frames_scored)


def supported_people(verdict: Verdict) -> list[Person]:
    """The people who decide on the clip: seen in enough frames."""
    needed = support_of(verdict)
    return [person for person in verdict.people if person.frames >= needed]


def judge(facts: ClipFacts, scores: Scores, calibration: Calibration | None, thresholds: Thresholds | None) -> Verdict:
    """The verdict on a clip. It contains scored people and frames for every outcome."""
    confirm = min(CONFIRM_FRAMES, max(1, facts.frames_sampled))
    people: list[Person] = []
    for track in np.unique(scores.track_ids):
        of_track = scores.track_ids == track
        frames = len(np.unique(scores.index[of_track]))
        if frames < confirm:
            continue
        times = scores.t_s[of_track]
        sums = LogitSum.of(scores.logits[of_track], scores.quality[of_track], calibration)
        people.append(
            Person(
                track=int(track),
                probability=sums.probability(calibration),
                likelihood_ratio=sums.likelihood_ratio(calibration),
                frames=frames,
                first_s=round(float(times.min()), 3),
                last_s=round(float(times.max()), 3),
            )
        )
    shown = np.isin(scores.track_ids, [person.track for person in people])

    def runs(track: int, log_odds: float, contrast: float) -> list[Run]:
        of_track = scores.track_ids == track
        arrays = (scores.t_s[of_track], scores.logits[of_track], scores.quality[of_track])
        return strongest_runs(*arrays, calibration, log_odds=log_odds, contrast=contrast)

    return conclude(
        facts,
        people,
        scored_faces(scores, shown, facts.turn),
        len(np.unique(scores.index[shown])),
        calibration,
        thresholds,
        runs,
    )


def conclude(
    facts: ClipFacts,
    people: list[Person],
    frames: list[ScoredFace],
    frames_scored: int,
    calibration: Calibration | None,
    thresholds: Thresholds | None,
    runs: Runs,
) -> Verdict:
    """The verdict on what is known of each person.

    Args:
        facts: see `ClipFacts`.
        people: with enough frames to be reported.
        frames: their scored faces.
        frames_scored: frames with one of them.
        calibration: of the weights.
        thresholds: likewise.
        runs: given a track and the log-odds and contrast that a run needs, its runs; see `strongest_runs`.
    """
    needed = support_needed([person.frames for person in people], facts.frames_sampled, frames_scored)
    supported = [person for person in people if person.frames >= needed]
    failure = facts.failure or _gap(facts) or (None if supported else _shortcoming(facts, people, needed))
    deciding: Person | None = None
    decided: Label | None = None
    segments: list[Segment] = []
    if failure is None:
        deciding = max(supported, key=lambda person: person.probability)
        decided = label(deciding.probability, len(supported), thresholds)
        if facts.coverage is not None and deciding.frames == 1:
            # One frame of a video is an accident; a picture has thresholds of its own.
            decided = Label.INCONCLUSIVE
        if thresholds is not None and (segments := _segments(supported, calibration, thresholds, runs)):
            decided = Label.FAKE
    verdict = Verdict(
        id=facts.id,
        source=facts.source,
        outcome=failure.outcome if failure else Outcome.SCORED,
        probability=None if deciding is None else deciding.probability,
        likelihood_ratio=None if deciding is None else deciding.likelihood_ratio,
        label=decided,
        error=failure.error if failure else None,
        duration_s=None if facts.duration_s is None else round(facts.duration_s, 3),
        frames_sampled=facts.frames_sampled,
        frames_scored=frames_scored,
        people=people,
        frames=frames,
        segments=segments,
        coverage=facts.coverage,
        part=facts.part,
        adapted=facts.adapted,
        pixel_aspect=round(facts.pixel_aspect, 6),
        not_judged={name: count for name, count in sorted(facts.not_judged.items()) if count},
        provenance=facts.provenance,
        elapsed_s=round(facts.elapsed_s, 3),
    )
    return verdict.model_copy(
        update={
            "evidence": evidence_of(verdict.likelihood_ratio, calibration),
            "extent": (extent_of(supported, segments, verdict.judged_s, thresholds) if decided is Label.FAKE else None),
            "limits": limits_of(verdict, supported if deciding is not None else [], frames, calibration),
        }
    )


def _segments(
    people: list[Person], calibration: Calibration | None, thresholds: Thresholds, runs: Runs
) -> list[Segment]:
    """Short stretches that look forged, of people who do not."""
    _, fake = thresholds.of(len(people))
    frames = sum(float(independent_frames(person.frames, person.last_s - person.first_s)) for person in people)
    contrast = thresholds.contrast_of(frames)
    if contrast is None or fake >= 1:
        return []
    log_odds = math.log(fake / (1 - fake)) if fake > 0 else -math.inf
    found = [
        Segment(
            track=person.track,
            from_s=round(stretch.from_s, 3),
            to_s=round(stretch.to_s, 3),
            probability=stretch.sums.probability(calibration),
            frames=stretch.sums.count,
        )
        for person in people
        if person.probability < fake
        for stretch in stretches(runs(person.track, log_odds, contrast))
    ]
    return sorted(found, key=lambda segment: (segment.from_s, segment.track))


def _gap(facts: ClipFacts) -> Failure | None:
    """Too little of the video was seen for a statement about it."""
    coverage = facts.coverage
    if coverage is None or coverage.share >= facts.min_coverage:
        return None
    needed = f"at least {facts.min_coverage:.0%} are needed (UNMASK_MIN_COVERAGE)"
    return Failure(Outcome.UNDECODABLE, f"only {describe(coverage)}; {needed}")


def _shortcoming(facts: ClipFacts, people: list[Person], needed: int) -> Failure:
    if facts.frames_sampled == 0:
        return Failure(Outcome.UNDECODABLE, "no frame could be decoded")
    sampled = f"{facts.frames_sampled} sampled frame{'s' if facts.frames_sampled > 1 else ''}"
    missing = describe(facts.coverage) if facts.coverage is not None else ""
    if facts.faces_seen == 0:
        return Failure(Outcome.NO_FACE, f"no face in {sampled}" + (f"; {missing}" if missing else ""))
    text = _too_little(facts, people, sampled, needed)
    return Failure(Outcome.LOW_QUALITY, f"{text}; {missing}" if missing else text)


def _too_little(facts: ClipFacts, people: list[Person], sampled: str, needed: int) -> str:
    """Why the faces of a clip are not enough, with the counts of those that could not be judged."""
    reasons = flaws_text(facts.not_judged)
    if people:
        best = max(person.frames for person in people)
        text = f"the person seen best has {best} scored frames of {facts.frames_sampled} sampled; {needed} are needed"
        return f"{text}; faces not judged: {reasons}" if reasons else text
    faces = f"{facts.faces_seen:,} face{'s' if facts.faces_seen > 1 else ''} in {sampled}"
    unconfirmed = facts.faces_seen - sum(facts.not_judged.values())
    if not reasons:
        return f"{faces}, none seen in a second frame"
    return f"{faces}: {reasons}" + (f", {unconfirmed:,} not seen in a second frame" if unconfirmed > 0 else "")


def scored_faces(scores: Scores, shown: npt.NDArray[np.bool_], turn: int = 0) -> list[ScoredFace]:
    """The scores under the mask, by time and track, as the record lists them; `turn` as in `ClipFacts`."""
    order = np.lexsort((scores.track_ids, scores.t_s))
    return [
        ScoredFace(
            t_s=round(float(scores.t_s[i]), 3),
            index=int(scores.index[i]),
            track=int(scores.track_ids[i]),
            box=(
                round(float(scores.boxes[i, 0]), 1),
                round(float(scores.boxes[i, 1]), 1),
                round(float(scores.boxes[i, 2]), 1),
                round(float(scores.boxes[i, 3]), 1),
            ),
            probability=round(float(scores.probability[i]), 6),
            quality=round(float(scores.quality[i]), 4),
            roll=(360 - turn) % 360,
        )
        for i in order
        if shown[i]
    ]
