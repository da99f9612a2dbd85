"""What a verdict says in words: how strong its evidence is, about whom and when, and what limits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import numpy as np

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import (
    Evidence,
    Extent,
    Limit,
    LimitCode,
    Outcome,
    Person,
    ScoredFace,
    Segment,
    Strength,
    Verdict,
)

# The verbal scale of the ENFSI Guideline for Evaluative Reporting in Forensic Science, 2015: the least likelihood ratio
# of each strength. A ratio below 2 supports neither side.
SCALE: Final[Mapping[Strength, float]] = {
    Strength.EXTREMELY_STRONG: 1e6,
    Strength.VERY_STRONG: 1e4,
    Strength.STRONG: 1e3,
    Strength.MODERATELY_STRONG: 1e2,
    Strength.MODERATE: 1e1,
    Strength.WEAK: 2.0,
}
# Faces below this side are measured to be harder: docs/model-card.md has the AUC of both slices.
SMALL_FACE_PX: Final = 130.0
# A person of fewer scored frames rests on little: the spread of a mean of nine is a third of that of one.
FEW_FRAMES: Final = 9
# The weights count less than half of what such pictures show.
LITTLE_TRUST: Final = 0.5
# From this many people on, the highest score is high by chance; the thresholds rise with their number.
MANY_PEOPLE: Final = 4


def evidence_of(ratio: float | None, calibration: Calibration | None) -> Evidence | None:
    """The strength of a likelihood ratio; None without one.

    Args:
        ratio: how many times more likely the scores are if the face is forged than if it is real.
        calibration: of the weights, which has the bounds that the ratio cannot pass.
    """
    if ratio is None:
        return None
    times = max(ratio, 1 / ratio)
    strength = next((name for name, least in SCALE.items() if times >= least), Strength.NONE)
    side: Literal["forged", "real"] = "forged" if ratio > 1 else "real"
    bounds = None if calibration is None else calibration.bounds
    at_bound = bounds is not None and not bounds.lower * (1 + 1e-9) < ratio < bounds.upper * (1 - 1e-9)
    clips = None if bounds is None else bounds.reals + bounds.fakes
    return Evidence(
        supports="neither" if strength is Strength.NONE else side,
        strength=strength,
        at_bound=at_bound,
        validation_clips=clips,
    )


def extent_of(
    people: Sequence[Person], segments: Sequence[Segment], duration_s: float | None, thresholds: Thresholds | None
) -> Extent | None:
    """Who looks forged, and when; None if nobody does.

    Args:
        people: those who decide on the clip.
        segments: of the record.
        duration_s: of what was judged; None where it is unknown.
        thresholds: of the weights.
    """
    if thresholds is None or not people:
        return None
    _, fake = thresholds.of(len(people))
    whole = [person for person in people if person.probability >= fake]
    spans = [(person.first_s, person.last_s) for person in whole]
    spans += [(segment.from_s, segment.to_s) for segment in segments]
    if not spans:
        return None
    merged = _merged(spans)
    seconds = sum(end - start for start, end in merged)
    return Extent(
        tracks=sorted({*(person.track for person in whole), *(segment.track for segment in segments)}),
        stretches=[(round(start, 3), round(end, 3)) for start, end in merged],
        share=round(min(1.0, seconds / duration_s), 4) if duration_s else None,
    )


def limits_of(
    verdict: Verdict, people: Sequence[Person], faces: Sequence[ScoredFace], calibration: Calibration | None
) -> list[Limit]:
    """What makes a verdict less certain than its number, those of the clip first.

    Args:
        verdict: the rest of it.
        people: those who decide on the clip.
        faces: scored ones.
        calibration: of the weights.
    """
    found = [Limit(code=code, track=None) for code in _limits_of_clip(verdict, people)]
    for person in people:
        of_person = [face for face in faces if (face.track, face.stream) == (person.track, person.stream)]
        found += [Limit(code=code, track=person.track) for code in _limits_of_person(person, of_person, calibration)]
    return found


def _limits_of_clip(verdict: Verdict, people: Sequence[Person]) -> Iterable[LimitCode]:
    if verdict.part is not None:
        yield LimitCode.PART_JUDGED
    if verdict.coverage is not None and not verdict.coverage.is_whole:
        yield LimitCode.PARTLY_READ
    if verdict.adapted is not None and verdict.adapted.early:
        yield LimitCode.FEW_LOOKED_AT
    if len(people) >= MANY_PEOPLE:
        yield LimitCode.MANY_PEOPLE
    # Those who were found and not judged could be the forged ones.
    left_out = sum(verdict.not_judged.values())
    if verdict.outcome is Outcome.LOW_QUALITY or left_out > len(verdict.frames):
        yield from (LimitCode(name) for name in sorted(verdict.not_judged) if name in _FLAWS)


def _limits_of_person(
    person: Person, faces: Sequence[ScoredFace], calibration: Calibration | None
) -> Iterable[LimitCode]:
    if person.frames < FEW_FRAMES:
        yield LimitCode.FEW_FRAMES
    if not faces:
        return
    boxes = np.array([face.box for face in faces])
    sides = np.sqrt(np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 0))
    if float(np.median(sides)) < SMALL_FACE_PX:
        yield LimitCode.SMALL_FACE
    quality = np.array([face.quality for face in faces])
    if calibration is not None and quality.sum() > 0:
        trust = float(np.average(calibration.trust(quality), weights=quality))
        if trust < LITTLE_TRUST:
            yield LimitCode.POOR_PICTURE


_FLAWS: Final = frozenset(
    {
        LimitCode.TINY,
        LimitCode.CUT_OFF,
        LimitCode.TURNED,
        LimitCode.UNCLEAR,
        LimitCode.DARK,
        LimitCode.COVERED,
    }
)


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
