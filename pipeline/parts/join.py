"""Long videos in parts: the split by time, and joining the parts' results into one verdict.

The verdict equals that of an unsplit scan, except that each part has its own tracker. So

- full detections come at other frames than in an unsplit scan, unless sampled frames are at whole seconds, where parts
  begin, and the unsplit scan's were not shifted by a cut or a lost face. Boxes then move by a few per cent of a face: a
  probability of a clip by up to 0.02, measured on 17 clips, and a face may come or go a frame or two apart;
- a person is carried over a border by the frames of the overlap. Someone who is in none of them, on either side of the
  border, is a new person afterwards, even if an unsplit scan would have recognised them (within
  `TrackerSettings.max_lost_s`, or after a cut back). Support is counted for each of the two alone;
- limits of the decoder on time and memory hold for each part.

The `index` of a frame is that of the unsplit clip: if a part could only estimate it, the overlap corrects it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

import numpy as np

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Provenance, Verdict
from pipeline.faces.boxes import iou
from pipeline.faces.flaws import flaw_counts
from pipeline.parts.result import PartError, PartResult
from pipeline.types import Ints, Scores
from pipeline.verdict.aggregate import ClipFacts, judge
from pipeline.verdict.coverage import MIN_COVERAGE, coverage_of
from pipeline.verdict.coverage import joined as joined_damage
from pipeline.video.sampling import Even, Every, Fps, Sampling
from pipeline.video.window import Window

__all__ = ["PartError", "PartResult", "join_parts", "judge_parts", "overlap_for", "plan_parts"]

# A container may declare a duration of years; a plan makes at most this many parts (and messages).
MAX_PARTS: Final = 4096
# Two boxes of one face in one frame overlap by more: full detection and refinement by .88 to .96.
_SAME_FACE_IOU = 0.5


def plan_parts(duration_s: float, part_s: float, overlap_s: float = 1.0) -> tuple[Window, ...]:
    """Equal parts of a clip; each but the first begins `overlap_s` before the end of the previous one.

    They end at whole seconds: a tracker that begins at one makes its full detections, one a second, at the frames at
    which an unsplit scan makes most of them.

    Args:
        duration_s: of the clip. The last part is open, so that nothing is lost of a clip longer than declared.
        part_s: the longest share of a part, its overlap not counted; at least 2 s. All shares are equal, to a second.
        overlap_s: at most half of `part_s`, in whole seconds. People are carried over a border by the sampled frames
            in it, see `overlap_for`.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= duration_s < math.inf:
        raise ValueError(f"duration_s must be a number from 0 on, got {duration_s}")
    if not 2 <= part_s < math.inf:
        raise ValueError(f"part_s must be at least 2 s, got {part_s}")
    if not 0 <= overlap_s <= part_s // 2:
        raise ValueError(f"overlap_s must be in 0..{part_s // 2:g}, half of part_s, got {overlap_s}")
    count = min(max(1, math.ceil(duration_s / part_s)), MAX_PARTS)
    ends_s = [float(math.floor(k * duration_s / count)) for k in range(1, count)]
    return (
        Window(0.0, ends_s[0] if ends_s else math.inf),
        *(Window(a - overlap_s, b) for a, b in pairwise([*ends_s, math.inf])),
    )


def overlap_for(sampling: Sampling, duration_s: float, fps: float | None, part_s: float) -> float | None:
    """The overlap that holds two samples wherever a border is, for `plan_parts`; None if such a clip cannot be split.

    People are carried over a border by the samples of the overlap: without two of them, each person would become
    another one there, with too few frames to be reported.

    Args:
        sampling: of the clip.
        duration_s: of the clip.
        fps: its average frame rate; None if unknown.
        part_s: the longest share of a part.
    """
    frame_s = 0.0 if fps is None or fps <= 0 else 1 / fps
    match sampling:
        case Fps(rate):
            gap_s = max(1 / rate, frame_s)
        case Even(count):
            gap_s = max(duration_s / count, frame_s)
        case Every(n) if frame_s:
            gap_s = n * frame_s
        case _:
            # Key frames come as the encoder wanted; without a frame rate, nothing is known of every n-th frame.
            return None
    on_the_second = isinstance(sampling, Fps) and sampling.fps == round(sampling.fps) and frame_s <= gap_s / 2
    # Samples are at the first frame after their time; where parts begin with one, two gaps are enough.
    needed_s = 2 * gap_s if on_the_second else 2 * gap_s + max(frame_s, 0.1)
    overlap_s = float(max(1, math.ceil(needed_s - 1e-9)))
    return overlap_s if overlap_s <= part_s // 2 else None


def join_parts(parts: Sequence[PartResult], min_coverage: float = MIN_COVERAGE) -> tuple[ClipFacts, Scores]:
    """Join the parts into what an unsplit scan would have collected, for `judge`.

    Frames of an overlap come from the earlier part, whose tracker already knew the people. Tracks of neighbouring parts
    are one person if their boxes overlap in most frames of the overlap that show both. People are numbered in the order
    of their appearance. The first part that failed decides: its frames before the failure count, later parts do not,
    and may be missing. `elapsed_s` is the sum of the parts'.

    Args:
        parts: of one clip, in any order, each once.
        min_coverage: see `ClipFacts`.

    Raises:
        PartError: they differ in bytes, weights, detector or sampling, or leave a gap.
    """
    parts = _counted(sorted(parts, key=lambda part: part.window.start_s))
    joined = _Joined()
    for part in parts:
        joined.add(part)
    duration_s = next((part.duration_s for part in parts if part.duration_s is not None), None)
    damages = [part.damage for part in parts if part.damage is not None]
    facts = ClipFacts(
        id=parts[0].clip_id,
        source=parts[0].source,
        duration_s=duration_s,
        frames_sampled=joined.frames,
        faces_seen=joined.faces,
        failure=parts[-1].failure,
        provenance=_provenance(parts),
        elapsed_s=sum(part.elapsed_s for part in parts),
        not_judged=joined.not_judged,
        coverage=coverage_of(joined_damage(damages), duration_s) if len(damages) == len(parts) else None,
        min_coverage=min_coverage,
        pixel_aspect=parts[0].pixel_aspect,
        # Parts without people are not turned.
        turn=next((part.turn for part in parts if part.turn), 0),
    )
    return facts, Scores.join(facts.id, joined.scores)


def judge_parts(
    parts: Sequence[PartResult],
    calibration: Calibration | None,
    thresholds: Thresholds | None,
    min_coverage: float = MIN_COVERAGE,
) -> Verdict:
    """The verdict on a clip from the results of its parts; see `join_parts` and `judge`.

    Raises:
        PartError: they do not belong together, or leave a gap.
    """
    return judge(*join_parts(parts, min_coverage), calibration, thresholds)


def _counted(parts: Sequence[PartResult]) -> Sequence[PartResult]:
    """The parts that decide, in order: all, or those up to the first that failed."""
    reached_s = 0.0
    counted: list[PartResult] = []
    for part in parts:
        if part.window.start_s > reached_s:
            break
        if counted:
            _check_same(counted[0], part)
        counted.append(part)
        reached_s = max(reached_s, part.window.end_s)
        if part.failure is not None:
            return counted
    duration_s = max((part.duration_s or 0.0 for part in counted), default=0.0)
    if len(counted) < len(parts) or not counted or (math.isfinite(reached_s) and not 0 < duration_s <= reached_s):
        raise PartError(f"a part is missing: there is no result from {reached_s:g} s on")
    return counted


def _check_same(first: PartResult, part: PartResult) -> None:
    a, b = first.provenance, part.provenance
    names = ["model", "weights_sha256", "input_spec", "detector", "sampling", "untrained"]
    if a.source_sha256 is not None and b.source_sha256 is not None:
        names.append("source_sha256")
    different = [name for name in names if getattr(a, name) != getattr(b, name)]
    if first.clip_id != part.clip_id:
        different.append("clip_id")
    if different:
        raise PartError(
            f"parts {first.window.describe()} and {part.window.describe()} differ in {', '.join(different)}"
        )


def _provenance(parts: Sequence[PartResult]) -> Provenance:
    """The provenance of all; several machines may have scored the parts."""
    each = [part.provenance for part in parts]
    decoders = [provenance.decoder for provenance in each if provenance.decoder != "none"] or ["none"]
    return each[0].model_copy(
        update={
            "decoder": "; ".join(dict.fromkeys(decoders)),
            "software": "; ".join(dict.fromkeys(provenance.software for provenance in each)),
            "source_sha256": next((p.source_sha256 for p in each if p.source_sha256 is not None), None),
        }
    )


class _Joined:
    """Parts that were joined so far, in order."""

    def __init__(self) -> None:
        self.frames = 0
        self.faces = 0
        self.not_judged: Counter[str] = Counter()
        self.scores: list[Scores] = []
        self._last: PartResult | None = None  # with the clip's numbers of frames and people
        self._people = 0

    def add(self, part: PartResult) -> None:
        """Append the next part."""
        before = self._last
        known: dict[int, int] = {}
        fresh_from = 0
        if before is not None:
            fresh_from = int(np.searchsorted(part.t_s, before.t_s[-1], side="right")) if len(before.t_s) else 0
            part = replace(part, index=part.index + _shift(before, part, fresh_from))
            known = _same_people(before, part)
        fresh = part.frame >= fresh_from
        for track in part.track_ids[fresh].tolist():
            if track not in known:
                known[track] = self._people
                self._people += 1
        # A track that is only in the overlap and matches no one there is dropped: the earlier part did not see it.
        part = replace(part, track_ids=np.array([known.get(track, -1) for track in part.track_ids.tolist()], np.int64))
        self.frames += len(part.t_s) - fresh_from
        self.faces += int(fresh.sum())
        self.not_judged += flaw_counts(part.flaws[fresh])
        scored = fresh & np.isfinite(part.logits)
        self.scores.append(
            Scores(
                part.clip_id,
                part.index[part.frame[scored]],
                part.t_s[part.frame[scored]],
                part.track_ids[scored],
                part.quality[scored],
                part.boxes[scored],
                part.logits[scored],
                part.probability[scored],
            )
        )
        if before is None or len(part.t_s) > fresh_from:
            self._last = part


def _common(before: PartResult, part: PartResult) -> tuple[Ints, Ints]:
    """Rows of the frames that both sampled, in each."""
    _, a, b = np.intersect1d(before.t_s, part.t_s, assume_unique=True, return_indices=True)
    return a, b


def _shift(before: PartResult, part: PartResult, fresh_from: int) -> int:
    """The offset from this part's frame numbers to those of the part before."""
    a, b = _common(before, part)
    if len(a):
        return int(before.index[a[0]] - part.index[b[0]])
    if fresh_from == len(part.t_s) or len(before.t_s) == 0:
        return 0
    # No common frame. Estimates may overlap, and two frames of one number would count as one.
    return max(0, int(before.index[-1] + 1 - part.index[fresh_from]))


def _same_people(before: PartResult, part: PartResult) -> dict[int, int]:
    """The part's tracks that are people of the part before: mutual best matches, in most common frames."""
    together: dict[tuple[int, int], int] = {}
    agreed: dict[tuple[int, int], int] = {}
    for row_a, row_b in zip(*_common(before, part), strict=True):
        in_a, in_b = np.flatnonzero(before.frame == row_a), np.flatnonzero(part.frame == row_b)
        if len(in_a) == 0 or len(in_b) == 0:
            continue
        overlap = iou(before.boxes[in_a], part.boxes[in_b])
        best_of_a, best_of_b = overlap.argmax(axis=1), overlap.argmax(axis=0)
        for i, a in enumerate(before.track_ids[in_a].tolist()):
            for j, b in enumerate(part.track_ids[in_b].tolist()):
                together[a, b] = together.get((a, b), 0) + 1
                best = best_of_a[i] == j and best_of_b[j] == i and overlap[i, j] >= _SAME_FACE_IOU
                agreed[a, b] = agreed.get((a, b), 0) + bool(best)
    found: dict[int, int] = {}
    # The pair that agrees most often first; each track once.
    for (a, b), frames in sorted(agreed.items(), key=lambda item: (-item[1], item[0])):
        if a >= 0 and 2 * frames > together[a, b] and b not in found and a not in found.values():
            found[b] = a
    return found
