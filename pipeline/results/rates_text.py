"""Measured error rates for clips like a judged one, as reports show them: of which slice, of what, and of what not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final

from models.error_rates import Called, Rates, RateTable, slice_at, wilson
from pipeline.contracts import ScoredFace, Verdict
from pipeline.verdict.aggregate import support_of

# Data sets by the names that `unmask data prepare` gives them.
_DATASETS: Final = {
    "dfdc": "DFDC",
    "dfl": "DeepFaceLive swaps",
    "ffhq": "FFHQ",
    "ffpp_c23": "FaceForensics++ c23",
    "utkface": "UTKFace",
}
# Fewer items of a class give an interval too wide to say much.
FEW: Final = 30


@dataclass(frozen=True, slots=True)
class FaceFacts:
    """What slices are chosen by: the scored faces of the person who decides.

    Attributes:
        track: of the person.
        faces: scored ones of theirs in the record.
        width_px: median of the widths of their boxes, in px of the frame.
        quality: mean, in 0..1.
    """

    track: int
    faces: int
    width_px: float
    quality: float


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Rates for a clip.

    Attributes:
        facts: of the clip; None where no scored face is in its record.
        table: of its weights; None: not known.
        sentences: what the rates are of, and of what not; with unknown rates, that they are unknown.
        rows: label, range, reals called fake, reals called real, fakes called fake, fakes called real.
    """

    facts: FaceFacts | None
    table: RateTable | None
    sentences: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; slices of the clip with counts and intervals."""
        found: dict[str, Any] = {"known": self.table is not None, "sentences": list(self.sentences)}
        found["faces"] = None if self.facts is None else asdict(self.facts)
        slices = {} if self.table is None else dict(_slices(self.table, self.facts))
        found["slices"] = {name: None if rates is None else rates.to_dict() for name, rates in slices.items()}
        found["whole"] = None if self.table is None else self.table.whole.to_dict()
        return found


HEAD: Final = ("crops", "reals called fake", "reals called real", "fakes called fake", "fakes called real")


def face_facts(verdict: Verdict) -> FaceFacts | None:
    """Size and quality of the faces of the person whose probability is the clip's; None without any in the record."""
    needed = support_of(verdict)
    ranked = sorted(
        verdict.people,
        key=lambda each: (each.probability == verdict.probability, each.frames >= needed, each.frames),
        reverse=True,
    )
    if not ranked:
        return None
    faces = [face for face in verdict.frames if face.track == ranked[0].track]
    if not faces:
        return None
    return FaceFacts(
        ranked[0].track,
        len(faces),
        statistics.median(map(_width_px, faces)),
        statistics.fmean(face.quality for face in faces),
    )


def error_rates(verdict: Verdict, tables: Iterable[RateTable]) -> ErrorRates:
    """The rates for a clip by those of these tables that are of its weights; the first one counts.

    Args:
        verdict: of the clip.
        tables: of any weights.
    """
    weights = "+".join(verdict.provenance.weights_sha256)
    table = next((each for each in tables if weights and each.weights_sha256 == weights), None)
    facts = face_facts(verdict)
    if table is None:
        which = f"sha256 {weights}" if weights else "which are not pinned"
        unknown = (
            f"The error rates of these weights ({which}) on clips like this one are not known: no table of measured "
            "rates came with them or was named. The share for which the threshold was chosen is of validation data "
            "alone."
        )
        return ErrorRates(facts, None, (unknown,), ())
    rows = [_row(f"all {table.whole.reals.total + table.whole.fakes.total:,} crops", table.whole)]
    for name, rates in _slices(table, facts):
        if rates is not None:
            rows.append(_row(f"{_TITLES[name]} {_range(name, rates)}", rates))
    rows += [_row(_degradation(each), each) for each in table.degraded]
    if table.videos is not None:
        rows.append(_row("by video, all their crops together", table.videos))
    return ErrorRates(facts, table, tuple(_sentences(verdict, table, facts)), tuple(rows))


_TITLES: Final = {"face_px": "faces", "quality": "quality"}


def _slices(table: RateTable, facts: FaceFacts | None) -> list[tuple[str, Rates | None]]:
    if facts is None:
        return []
    return [
        ("face_px", slice_at(table.face_px, facts.width_px)),
        ("quality", slice_at(table.quality, facts.quality)),
    ]


def _sentences(verdict: Verdict, table: RateTable, facts: FaceFacts | None) -> Iterable[str]:
    sets = ", ".join(
        f"{_DATASETS.get(name, name)} ({reals:,} reals, {fakes:,} fakes)"
        for name, (reals, fakes) in table.datasets.items()
    )
    looks = f", looks {table.looks}" if table.looks else ""
    half = f", half {table.half}" if table.half else ""
    yield (
        f"Measured on {table.measured_on} with these weights ({table.model}{looks}) on single face crops of {sets}; "
        f"split {table.split or 'all rows'}{half}. Each crop was judged by itself at the thresholds for one person; "
        "what is neither called fake nor real is inconclusive. In brackets: the count, and the 95 % interval by Wilson."
    )
    if facts is None:
        yield "No scored face of a person is in the record, so no slice of these crops is like this clip."
    else:
        yield (
            f"This clip: track {facts.track} decides, with {facts.faces:,} scored faces, median width "
            f"{facts.width_px:.1f} px, mean quality {facts.quality:.2f}. The slices below are of crops of that size, "
            "and of that quality."
        )
        for name, rates in _slices(table, facts):
            if rates is None:
                yield f"No measured crop is in this clip's slice by {_BY[name]}."
            elif min(rates.reals.total, rates.fakes.total) < FEW:
                yield f"The slice by {_BY[name]} has few crops: its intervals are wide."
    yield (
        "The record does not say how strongly the clip was compressed, so no slice by compression is chosen: the rows "
        "of the sample show what compression and shrinking do to the same crops."
    )
    yield (
        "These are not the rates of whole clips, which have many frames of a person, nor of clips from other sources, "
        "with other kinds of forgery or edited against detection: those may be far worse. Crops of one video resemble "
        "each other, so the intervals are too narrow where many come from one. The rates do not say how likely it is "
        "that this clip is forged."
    )
    if len(verdict.people) > 1:
        yield "With several people in a clip, its threshold for fake is higher than the one for one person."


_BY: Final = {"face_px": "the width of the face", "quality": "quality"}


def _row(title: str, rates: Rates) -> tuple[str, ...]:
    given = ((rates.reals, "fake"), (rates.reals, "real"), (rates.fakes, "fake"), (rates.fakes, "real"))
    return (title, *(_share(called, label) for called, label in given))


def _share(called: Called, label: str) -> str:
    if not called.total:
        return "no crops"
    count = int(getattr(called, label))
    low, high = (_percent(end) for end in wilson(count, called.total))
    return f"{_percent(count / called.total)} % ({count:,} of {called.total:,}; {low} to {high})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _range(name: str, rates: Rates) -> str:
    low = rates.low or 0.0
    unit = " px wide" if name == "face_px" else ""
    if rates.high is None:
        return f"from {low:g}{unit}"
    return f"{low:g} to {rates.high:g}{unit}"


def _degradation(rates: Rates) -> str:
    sample = f"sample of {rates.reals.total + rates.fakes.total:,}"
    return f"{sample} as they are" if rates.name == "clean" else f"{sample}, {rates.name}"


def _width_px(face: ScoredFace) -> float:
    return face.box[2] - face.box[0]
