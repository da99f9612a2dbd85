"""The report's texts: what each outcome and label means, and number formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.clip_report import AppliedThresholds
from pipeline.contracts import Adapted, Evidence, JudgedPart, Label, Limit, LimitCode, Outcome, Segment, Verdict

Kind = Literal["fake", "inconclusive", "real", "untrained", "unjudged"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The texts for a verdict.

    Attributes:
        kind: its style on the page.
        badge: two words at most.
        headline: what was found.
        meaning: what that means, and what to do about it.
    """

    kind: Kind
    badge: str
    headline: str
    meaning: str


UNTRAINED = Finding(
    "untrained",
    "Untrained",
    "No verdict: the network is untrained",
    "Its weights are random, so its scores are noise. The people, the times and the pictures below are real; "
    "the numbers mean nothing.",
)

# From this probability on, an inconclusive clip is called close to fake: a reader must not overlook it.
CLOSE = 0.9
CLOSE_TO_FAKE = Finding(
    "inconclusive",
    "Close to fake",
    "Inconclusive, close to fake",
    "The score is high, but below the threshold for fake: real clips reach it too often to call this one forged. Look "
    "at the moments marked below, and find a longer clip, or one of better quality.",
)
BETWEEN = Finding(
    "inconclusive",
    "Inconclusive",
    "Inconclusive",
    "The score is between the two thresholds, or the weights have none. It supports neither conclusion. Poor "
    "pictures (small, blurred, strongly compressed) often end here: an earlier or larger copy may say more.",
)
# Ratios nearer to 1 than this are shown without a number.
EVEN = 1.5
# Stretches that a text names.
MAX_SEGMENTS = 5

LABELS: dict[Label, Finding] = {
    Label.FAKE: Finding(
        "fake",
        "Fake",
        "Likely forged",
        "At least one person scores at or above the threshold for fake. Look at the moments marked below, and at "
        "where the clip comes from, before you rely on it.",
    ),
    Label.REAL: Finding(
        "real",
        "Real",
        "No forgery found",
        "Everyone who is seen often enough scores below the threshold for real. That is no proof of authenticity: "
        "a kind of forgery that the network never saw may score low as well.",
    ),
    Label.INCONCLUSIVE: BETWEEN,
}

IN_PART = Finding(
    "fake",
    "Fake in part",
    "Likely forged in part",
    "Short stretches score at or above the threshold for fake and differ clearly from the rest of the same person, "
    "which does not. Look at them first. A change of the light, a blurred or covered face can look like that, too.",
)

OUTCOMES: dict[Outcome, Finding] = {
    Outcome.NO_FACE: Finding(
        "unjudged",
        "No face",
        "Not judged: no face found",
        "No sampled frame shows a face that is large and clear enough to be found. That says nothing about "
        "forgery. People may be absent, turned away, covered or very small.",
    ),
    Outcome.LOW_QUALITY: Finding(
        "unjudged",
        "Low quality",
        "Not judged: the faces are too poor",
        "Faces were found, but too few of them are large, sharp and frontal enough for a score that could be "
        "trusted. An earlier or larger copy of the clip may do.",
    ),
    Outcome.UNDECODABLE: Finding(
        "unjudged",
        "Undecodable",
        "Not judged: the file cannot be decoded",
        "It holds no video, is damaged or cut short, or is not a media file at all. Check whether a player opens "
        "it, and fetch it again from its source.",
    ),
    Outcome.OVER_LIMIT: Finding(
        "unjudged",
        "Over limit",
        "Not judged: a limit was passed",
        "Reading this file would take more time, memory or pixels than is allowed, so it was stopped. The limits "
        "are a guard against hostile files; raise them if you trust this one.",
    ),
    Outcome.UNAVAILABLE: Finding(
        "unjudged",
        "Unavailable",
        "Not judged: the clip cannot be opened",
        "It does not exist, may not be read, or could not be fetched. Check its path or address and your rights.",
    ),
    Outcome.SHED: Finding(
        "unjudged",
        "Shed",
        "Not judged: dropped from a live stream",
        "It was too old by the time the machine could look at it. Live streams drop the oldest first so as to keep up.",
    ),
    Outcome.MODEL_ERROR: Finding(
        "unjudged",
        "Model error",
        "Not judged: the detector failed",
        "The network or its backend broke on this clip. That is a fault of the software or of the weights, and says "
        "nothing about the clip.",
    ),
}


def finding_of(verdict: Verdict) -> Finding:
    """The texts for a verdict; an untrained network's label is ignored."""
    if verdict.label is None:
        return OUTCOMES[verdict.outcome]
    if verdict.provenance.untrained:
        return UNTRAINED
    if verdict.suspicion != verdict.probability:
        return IN_PART
    return CLOSE_TO_FAKE if is_close(verdict) else LABELS[verdict.label]


def is_close(verdict: Verdict) -> bool:
    """Whether an inconclusive clip scores high enough to be named in a headline."""
    high = verdict.probability is not None and verdict.probability >= CLOSE
    return high and verdict.label is Label.INCONCLUSIVE and not verdict.provenance.untrained


def run_headline(verdicts: Sequence[Verdict]) -> str:
    """The result of a run of clips, with clips that were not judged or are close to fake."""
    total = len(verdicts)
    kinds = Counter(finding_of(verdict).kind for verdict in verdicts)
    judged, fake = total - kinds["unjudged"], kinds["fake"]
    if total == 0:
        return "No clips"
    if total == 1:
        return finding_of(verdicts[0]).headline
    if judged == 0:
        return f"None of {total:,} clips could be judged"
    if kinds["untrained"] == judged:
        return f"{total:,} clips, no verdicts"
    close = [verdict.probability or 0.0 for verdict in verdicts if is_close(verdict)]
    near = ""
    if close:
        highest = f"p {'' if len(close) == 1 else 'up to '}{probability_text(max(close))}"
        near = f"; {_are(len(close))} close to it ({highest})"
    elif kinds["inconclusive"] and not fake:
        near = f"; {_are(kinds['inconclusive'])} inconclusive"
    if fake:
        return f"{fake:,} of {total:,} clips likely forged{near.replace('close to it', 'close to fake')}"
    counted = f"{judged:,} judged clips" if judged < total else f"{total:,} clips"
    return f"None of {counted} is called fake{near}"


def settled_text(adapted: Adapted, frames_sampled: int) -> str:
    """What a verdict on few frames rests on."""
    return (
        f"{frames_sampled} of about {adapted.planned} frames settled this verdict; "
        "a short forgery between them would not be seen"
    )


def adaptive_summary(verdicts: Sequence[Verdict]) -> str:
    """What adaptive sampling did in a run; "" if no verdict has it."""
    adapted = [verdict for verdict in verdicts if verdict.adapted is not None]
    if not adapted:
        return ""
    early = [verdict for verdict in adapted if verdict.adapted is not None and verdict.adapted.early]
    looked_at = sum(
        verdict.adapted.looked_at + (0 if verdict.adapted.early else verdict.frames_sampled)
        for verdict in adapted
        if verdict.adapted is not None
    )
    planned = sum(verdict.adapted.planned for verdict in adapted if verdict.adapted is not None)
    return (
        f"adaptive: few frames settled {len(early)} of {len(adapted)} clips; "
        f"{looked_at:,} frames were looked at in place of {planned:,}"
    )


def segments_text(segments: Sequence[Segment]) -> str:
    """When people look forged: "from 3.00 s to 4.50 s (p 0.98)" and so on."""
    named = [
        f"from {moment_text(segment.from_s)} to {moment_text(segment.to_s)} "
        f"(p {probability_text(segment.probability)}, track {segment.track})"
        for segment in segments[:MAX_SEGMENTS]
    ]
    more = len(segments) - MAX_SEGMENTS
    return ", ".join(named) + (f" and in {more:,} more stretches" if more > 0 else "")


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


_LIMITS: dict[str, str] = {
    LimitCode.PART_JUDGED: "only a part of the video was judged",
    LimitCode.PARTLY_READ: "only a part of the video could be read",
    LimitCode.FEW_LOOKED_AT: "only few frames were looked at",
    LimitCode.MANY_PEOPLE: "many people were judged, and the highest of many scores is high by chance",
    LimitCode.FEW_FRAMES: "seen in few frames",
    LimitCode.SMALL_FACE: "a small face",
    LimitCode.POOR_PICTURE: "a picture too poor to say much",
    LimitCode.TINY: "most faces are too small to be judged",
    LimitCode.CUT_OFF: "most faces are cut off by the edge of the picture",
    LimitCode.TURNED: "most faces are turned away",
    LimitCode.UNCLEAR: "most faces are too blurred, compressed or noisy",
    LimitCode.DARK: "most faces are too dark",
    LimitCode.COVERED: "most faces are covered by something",
}
# People whose limits a text names.
_MAX_LIMITED = 4


def limits_text(limits: Sequence[Limit]) -> str:
    """What to know before the number: "Only a part of the video could be read; track 0: a small face.", or ""."""
    of_people: dict[int, list[str]] = {}
    parts = []
    for limit in limits:
        if limit.track is None:
            parts.append(_limit_text(limit))
        else:
            of_people.setdefault(limit.track, []).append(_limit_text(limit))
    named = list(of_people.items())[:_MAX_LIMITED]
    parts += [f"track {track}: {', '.join(found)}" for track, found in named]
    if len(of_people) > len(named):
        more = len(of_people) - len(named)
        parts.append(f"and {more} more {'person' if more == 1 else 'people'}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _limit_text(limit: Limit) -> str:
    return _LIMITS.get(limit.code, limit.code.replace("_", " "))


def strength_text(evidence: Evidence) -> str:
    """The verbal scale: "Moderate support for a forgery"."""
    if evidence.supports == "neither":
        return "No support for either side"
    side = "a forgery" if evidence.supports == "forged" else "a real face"
    return f"{evidence.strength.value.replace('_', ' ').capitalize()} support for {side}"


def bound_text(evidence: Evidence) -> str:
    """Why the evidence is not stronger; "" where it could be."""
    if not evidence.at_bound or evidence.validation_clips is None:
        return ""
    return f"That is the most that {evidence.validation_clips:,} validation clips support."


def rationale(verdict: Verdict, thresholds: AppliedThresholds | None) -> str:
    """The facts behind the label in one sentence; "" unless scored."""
    if verdict.probability is None or not verdict.people:
        return ""
    person = max(verdict.people, key=lambda each: (each.probability == verdict.probability, each.frames))
    seen = f"{person.frames:,} frame{'' if person.frames == 1 else 's'}"
    when = f" from {moment_text(person.first_s)} to {moment_text(person.last_s)}" if person.frames > 1 else ""
    text = f"Track {person.track}, scored in {seen}{when}, has {probability_text(person.probability)}"
    if thresholds is not None:
        text += (
            f"; fake is called from {probability_text(thresholds.fake)}, real below {probability_text(thresholds.real)}"
        )
    if verdict.segments:
        text += f"; it looks forged {segments_text(verdict.segments)}"
    return f"{text}."


def thresholds_text(thresholds: AppliedThresholds) -> str:
    """What was called what, and how the upper threshold was chosen."""
    return (
        f"Real below {probability_text(thresholds.real)}, fake from {probability_text(thresholds.fake)}, inconclusive "
        f"between. The upper threshold was chosen on validation data so that {100 * thresholds.fpr:.3g} % of real "
        "clips are called fake."
    )


def evidence_text(ratio: float) -> str:
    """A likelihood ratio as a sentence; near 1 without a number."""
    if 1 / EVEN < ratio < EVEN:
        return "The scores are about as likely if the face is real as if it is forged."
    more, less = ("forged", "real") if ratio > 1 else ("real", "forged")
    return f"The scores are {times_text(ratio)} times more likely if the face is {more} than if it is {less}."


def evidence_badge(ratio: float) -> str:
    """A likelihood ratio in a cell of a table: "40 x fake", "12 x real" or "even"."""
    if 1 / EVEN < ratio < EVEN:
        return "even"
    return f"{times_text(ratio)} x {'fake' if ratio > 1 else 'real'}"


def times_text(ratio: float) -> str:
    """A factor with two digits: validation supports no more."""
    times = max(ratio, 1 / ratio)
    return f"{times:.1f}" if times < 10 else f"{float(f'{times:.2g}'):,.0f}"


def short_name(source: str) -> str:
    """The last part of a path or URI."""
    return source.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or source


def probability_text(probability: float) -> str:
    """Two decimals; never rounded to 0 or 1."""
    if 0 < probability < 0.005:
        return "<0.01"
    if 0.995 <= probability < 1:
        return ">0.99"
    return f"{probability:.2f}"


def duration_text(seconds: float) -> str:
    """`8.3 s`, `4 min 05 s` or `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def moment_text(seconds: float) -> str:
    """A time within a clip: `8.30 s` or `4:05.2`."""
    if seconds < 59.995:
        return f"{seconds:.2f} s"
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def part_text(part: JudgedPart) -> str:
    """`8.30 s to 4:05.2`, or `8.30 s to the end`."""
    return f"{moment_text(part.start_s)} to {'the end' if part.end_s is None else moment_text(part.end_s)}"


def tick_text(seconds: float) -> str:
    """A time on an axis, as short as it can be."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def utc_text(unix_s: float) -> str:
    """`2026-11-23 09:17:27 UTC`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
