"""State of a live stream between two segments: enough for any worker to continue as if it had seen all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from models.checkpoint_info import Calibration, Thresholds
from pipeline.contracts import Outcome, Person, Provenance, ScoredFace, Verdict
from pipeline.types import Floats, Scores
from pipeline.verdict.aggregate import CONFIRM_FRAMES, ClipFacts, Failure, conclude
from pipeline.verdict.evidence import LogitSum
from pipeline.verdict.segments import MAX_RUN_S, Run, best_apart, strongest_runs

# 2 added the partition.
STATE_VERSION: Final = 2
# Sequences that are missing and may still come. A stream that lost more never gets them back.
MAX_GAPS: Final = 1000
# Far beyond the time for which the tracker searches for a lost face.
FORGET_S: Final = 60.0
# Candidates for short forgeries that a person keeps, from even odds and this contrast on; and the latest frames, of
# which a run may go on in the next segment.
MAX_RUNS: Final = 8
LEAST_CONTRAST: Final = 2.0
MAX_RECENT: Final = 64


# Partition, None where it is unknown, and offset, -1 before the first.
Position = tuple[int | None, int]


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", validate_assignment=False)


class StoredRun(_State):
    """One run of frames of a person that may be a short forgery; see `pipeline.verdict.segments.Run`."""

    first_s: float
    last_s: float
    weighted: float
    weight: float
    plain: float
    count: int
    quality: float

    @classmethod
    def of(cls, run: Run) -> StoredRun:
        """To store it."""
        return cls(first_s=run.first_s, last_s=run.last_s, **asdict(run.sums))

    @property
    def run(self) -> Run:
        """As it was."""
        sums = LogitSum(self.weighted, self.weight, self.plain, self.count, self.quality)
        return Run(self.first_s, self.last_s, sums)


class Track(_State):
    """A person, summed up over all segments.

    Attributes:
        quality: None in states of versions that trusted all qualities alike: then it equals `weight`.
        runs: that differ most from the rest.
        recent: time, logit and quality of the frames of the last two seconds.
    """

    weighted: float = 0.0
    weight: float = 0.0
    plain: float = 0.0
    count: int = 0
    quality: float | None = None
    frames: int = 0
    first_s: float
    last_s: float
    runs: list[StoredRun] = Field(default_factory=list)
    recent: list[tuple[float, float, float]] = Field(default_factory=list)

    @property
    def logits(self) -> LogitSum:
        """Its frame logits."""
        quality = self.weight if self.quality is None else self.quality
        return LogitSum(self.weighted, self.weight, self.plain, self.count, quality)

    def find_runs(self, t_s: Floats, logits: Floats, quality: Floats, calibration: Calibration | None) -> None:
        """Keep the runs that differ most, with those of new scores, which are in the sums already."""
        new = np.stack([t_s, logits, quality], axis=1).astype(np.float64)
        seen = np.concatenate([np.array(self.recent, np.float64).reshape(-1, 3), new])
        whole, span_s = self.logits, self.last_s - self.first_s
        runs = strongest_runs(
            seen[:, 0],
            seen[:, 1],
            seen[:, 2],
            calibration,
            log_odds=0.0,
            contrast=LEAST_CONTRAST,
            whole=whole,
            span_s=span_s,
            limit=MAX_RUNS,
        )
        known = [stored.run for stored in self.runs]
        runs = best_apart([*known, *runs], lambda run: run.contrast(whole, span_s, calibration), MAX_RUNS)
        self.runs = [StoredRun.of(run) for run in runs]
        latest = seen[seen[:, 0] >= seen[:, 0].max() - MAX_RUN_S][-MAX_RECENT:]
        self.recent = [(float(t_s), float(logit), float(quality)) for t_s, logit, quality in latest]


class StreamState(_State):
    """A stream after some of its segments; as JSON in Redis, field `state` of its hash.

    Attributes:
        partition: in Kafka, of the last segment that was applied; None before the first, and in states of version 1.
        offset: of this segment; -1 before the first.
        next_sequence: behind the highest one that came.
        gaps: sequences below it that did not come, the latest ones.
        segments: that came and were looked at.
        late: of these, those that came after a later one.
        missing: sequences that did not come (so far).
        duplicated: that came again, or after the end, and were passed over.
        shed: too old when their turn came.
        failed: could not be decoded or scored.
        last_error: of the last one of these.
        closed: the stream has ended.
        clock_s: of the tracker, which wants time to go forward; late segments are put behind what came before.
        end_s: of the last segment in the stream's own time.
        not_judged: of the faces seen, how many have which flaw.
        tracks: people by number.
        tracker: snapshot of the face tracker; None before the first segment.
        turn: degrees clockwise that make people upright; None as long as there was too little to see it.
        weights_sha256: all that scored it.
        started_at: Unix seconds.
        updated_at: Unix seconds.
    """

    version: Literal[1, 2] = STATE_VERSION
    stream_id: str
    partition: int | None = None
    offset: int = -1
    next_sequence: int = 0
    gaps: list[int] = Field(default_factory=list)
    segments: int = 0
    late: int = 0
    missing: int = 0
    duplicated: int = 0
    shed: int = 0
    failed: int = 0
    last_error: str = ""
    closed: bool = False
    clock_s: float = 0.0
    end_s: float = 0.0
    frames_decoded: int = 0
    frames_sampled: int = 0
    frames_scored: int = 0
    faces_seen: int = 0
    not_judged: dict[str, int] = Field(default_factory=dict)
    tracks: dict[int, Track] = Field(default_factory=dict)
    tracker: dict[str, Any] | None = None
    turn: int | None = Field(default=None, ge=0, lt=360, multiple_of=90)
    weights_sha256: list[str] = Field(default_factory=list)
    decoder: str = "none"
    started_at: float
    updated_at: float

    @property
    def position(self) -> Position:
        """Partition and offset of the last segment that was applied."""
        return self.partition, self.offset

    def has_applied(self, partition: int, offset: int) -> bool:
        """Whether the message there was applied; False if unknown, since offsets of two partitions say nothing."""
        return self.partition in (None, partition) and offset <= self.offset

    def admit(self, sequence: int) -> bool:
        """Take note that a segment came; False where it came before, or after the end."""
        if self.closed or (sequence < self.next_sequence and sequence not in self.gaps):
            self.duplicated += 1
            return False
        if sequence in self.gaps:
            self.gaps.remove(sequence)
            self.missing -= 1
            self.late += 1
        else:
            skipped = sequence - self.next_sequence
            self.missing += skipped
            self.gaps = [*self.gaps, *range(max(self.next_sequence, sequence - MAX_GAPS), sequence)][-MAX_GAPS:]
            self.next_sequence = sequence + 1
        return True

    def add(self, scores: Scores, calibration: Calibration | None = None) -> None:
        """Add the scored faces of a segment; times in the stream's own time.

        Args:
            scores: of the segment.
            calibration: of the weights that scored it: how far each quality is trusted.
        """
        for track in np.unique(scores.track_ids).tolist():
            of_track = scores.track_ids == track
            sums = LogitSum.of(scores.logits[of_track], scores.quality[of_track], calibration)
            times = scores.t_s[of_track]
            known = self.tracks.get(track)
            if known is None:
                known = self.tracks[track] = Track(first_s=float(times.min()), last_s=float(times.max()))
            total = known.logits + sums
            known.weighted, known.weight, known.plain = total.weighted, total.weight, total.plain
            known.count, known.quality = total.count, total.quality
            known.frames += len(np.unique(scores.index[of_track]))
            known.first_s = min(known.first_s, float(times.min()))
            known.last_s = max(known.last_s, float(times.max()))
            known.find_runs(times, scores.logits[of_track], scores.quality[of_track], calibration)
        self.frames_scored += len(np.unique(scores.index))
        # A crowd passes by in hours: who was seen once and is gone will not be reported, and need not be kept.
        gone_s = max((track.last_s for track in self.tracks.values()), default=0.0) - FORGET_S
        self.tracks = {
            number: track
            for number, track in self.tracks.items()
            if track.frames >= CONFIRM_FRAMES or track.last_s >= gone_s
        }

    def add_not_judged(self, counts: Mapping[str, int]) -> None:
        """Add the faces of a segment that have a flaw."""
        self.not_judged = dict(Counter(self.not_judged) + Counter(counts))

    def people(self, calibration: Calibration | None) -> list[Person]:
        """Those who were seen often enough to be reported, by number."""
        return list(self._people(calibration))

    def _people(self, calibration: Calibration | None) -> Iterator[Person]:
        for number, track in sorted(self.tracks.items()):
            if track.frames >= min(CONFIRM_FRAMES, max(1, self.frames_sampled)):
                sums = track.logits
                yield Person(
                    track=number,
                    probability=sums.probability(calibration),
                    likelihood_ratio=sums.likelihood_ratio(calibration),
                    frames=track.frames,
                    first_s=round(track.first_s, 3),
                    last_s=round(track.last_s, 3),
                )

    def verdict(
        self,
        provenance: Provenance,
        calibration: Calibration | None,
        thresholds: Thresholds | None,
        frames: Sequence[ScoredFace],
    ) -> Verdict:
        """The verdict on what has come so far."""
        people = self.people(calibration)
        reported = {person.track for person in people}
        facts = ClipFacts(
            id=self.stream_id,
            source=f"stream:{self.stream_id}",
            duration_s=self.end_s,
            frames_sampled=self.frames_sampled,
            faces_seen=self.faces_seen,
            failure=self._failure(),
            provenance=provenance.model_copy(
                update={"weights_sha256": self.weights_sha256 or provenance.weights_sha256, "decoder": self.decoder}
            ),
            elapsed_s=max(0.0, self.updated_at - self.started_at),
            not_judged=self.not_judged,
        )
        shown = [face for face in frames if face.track in reported]

        def runs(number: int, log_odds: float, contrast: float) -> list[Run]:
            track = self.tracks[number]
            whole, span_s = track.logits, track.last_s - track.first_s
            return [
                run
                for run in (stored.run for stored in track.runs)
                if run.sums.log_odds(calibration) >= log_odds and run.contrast(whole, span_s, calibration) >= contrast
            ]

        return conclude(facts, people, shown, self.frames_scored, calibration, thresholds, runs)

    def _failure(self) -> Failure | None:
        if self.frames_sampled:
            return None
        if self.failed:
            return Failure(Outcome.UNDECODABLE, f"none of {self.segments} segments could be judged: {self.last_error}")
        if self.shed:
            return Failure(Outcome.SHED, f"all {self.shed} segments were too old when their turn came")
        return None
