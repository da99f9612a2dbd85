"""The result of one part of a long video, and its stored form until all parts are present."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from models.errors import UnmaskError
from pipeline.contracts import Contract, Id, Outcome, Provenance
from pipeline.types import Faces, Floats, Ints, Scores
from pipeline.verdict.aggregate import ClipFacts, Failure
from pipeline.verdict.coverage import Damage
from pipeline.video.window import Window, parse_window

PART_VERSION: Final = 1
# Limit of a frame's number: the sum of two still fits.
_MAX_INDEX = 2**53

Seconds = npt.NDArray[np.float64]


class PartError(UnmaskError, ValueError):
    """The input is not a part's result, or the parts do not belong together or leave a gap."""


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """A sampled frame and all faces in it, with those too poor to be scored."""

    t_s: float
    index: int
    faces: Faces


@dataclass(frozen=True, eq=False)
class PartResult:
    """The result of one part of a clip: F sampled frames and N faces in them, in order of time.

    Attributes:
        clip_id: of the whole clip.
        source: path or URI as given.
        window: which part it is.
        provenance: as in the record.
        duration_s: of the whole clip, None where unknown.
        failure: what ended the part early, if anything did.
        elapsed_s: seconds of wall clock spent on it.
        damage: what could not be read of it; None where that is unknown.
        pixel_aspect: of the clip, see `Verdict`.
        turn: see `ClipFacts`.
        t_s: float64 [F], times of the frames, growing.
        index: int64 [F], their numbers in the clip.
        frame: int64 [N], the row of each face's frame.
        track_ids: int64 [N], people as this part numbers them.
        boxes: float32 [N, 4].
        quality: float32 [N] in 0..1.
        flaws: int64 [N], see `Faces`.
        logits: float32 [N], log-odds of fake before calibration; NaN where the face was not scored.
        probability: float32 [N], calibrated P(fake) of the single frame; NaN where it was not scored.
    """

    clip_id: str
    source: str
    window: Window
    provenance: Provenance
    duration_s: float | None
    failure: Failure | None
    elapsed_s: float
    t_s: Seconds
    index: Ints
    frame: Ints
    track_ids: Ints
    boxes: Floats
    quality: Floats
    flaws: Ints
    logits: Floats
    probability: Floats
    damage: Damage | None = None
    pixel_aspect: float = 1.0
    turn: int = 0

    @classmethod
    def of(
        cls, facts: ClipFacts, window: Window, seen: Sequence[SeenFrame], scores: Scores, damage: Damage | None = None
    ) -> PartResult:
        """Build the result from what a scan collected.

        Args:
            facts: of the clip as this part knows it; its counts are taken from `seen`.
            seen: the sampled frames.
            scores: of some of their faces.
            damage: what could not be read.
        """
        faces = [look.faces for look in seen]
        frame = np.repeat(np.arange(len(seen)), [len(found) for found in faces])
        t_s = np.array([look.t_s for look in seen], np.float64)
        track_ids = np.concatenate([np.zeros(0, np.int64), *(found.track_ids for found in faces)])
        row_of = {key: row for row, key in enumerate(zip(t_s[frame].tolist(), track_ids.tolist(), strict=True))}
        rows = [row_of[key] for key in zip(scores.t_s.tolist(), scores.track_ids.tolist(), strict=True)]
        logits, probability = np.full((2, len(frame)), np.nan, np.float32)
        logits[rows], probability[rows] = scores.logits, scores.probability
        return cls(
            clip_id=facts.id,
            source=facts.source,
            window=window,
            provenance=facts.provenance,
            duration_s=facts.duration_s,
            failure=facts.failure,
            elapsed_s=facts.elapsed_s,
            t_s=t_s,
            index=np.array([look.index for look in seen], np.int64),
            frame=frame,
            track_ids=track_ids,
            boxes=np.concatenate([np.zeros((0, 4), np.float32), *(found.boxes for found in faces)]),
            quality=np.concatenate([np.zeros(0, np.float32), *(found.quality for found in faces)]),
            flaws=np.concatenate([np.zeros(0, np.int64), *(found.flaws for found in faces)]),
            logits=logits,
            probability=probability,
            damage=damage,
            pixel_aspect=facts.pixel_aspect,
            turn=facts.turn,
        )

    def to_bytes(self) -> bytes:
        """One line of JSON, exact to the bit: about 49 kB for 1,000 faces and 22 bytes for each sampled frame."""
        failure = self.failure
        return (
            _PartRecord(
                part=PART_VERSION,
                clip_id=self.clip_id,
                source=self.source,
                window=self.window.describe(),
                provenance=self.provenance,
                duration_s=self.duration_s,
                failure=None
                if failure is None
                else _FailureRecord(outcome=failure.outcome, error=failure.error, transient=failure.transient),
                elapsed_s=self.elapsed_s,
                damage=None if self.damage is None else _DamageRecord(**asdict(self.damage)),
                pixel_aspect=self.pixel_aspect,
                turn=self.turn,
                columns={name: _packed(getattr(self, name), stored) for name, (stored, _) in _COLUMNS.items()},
            )
            .model_dump_json()
            .encode()
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> PartResult:
        """Read the result that `to_bytes` wrote.

        Raises:
            PartError: the bytes are not such a result, or of a later version.
        """
        try:
            record = _PartRecord.model_validate_json(data)
            window = parse_window(record.window)
            columns: dict[str, Any] = {
                name: _unpacked(record.columns[name], stored, dtype)
                for name, (stored, dtype) in _COLUMNS.items()
                if name not in _ADDED or name in record.columns
            }
            for name in _ADDED - columns.keys():
                columns[name] = np.zeros(len(columns["frame"]), _COLUMNS[name][1])
            columns["boxes"] = columns["boxes"].reshape(-1, 4)
        except (ValidationError, KeyError, ValueError) as error:  # ValueError: wrong length, bad base64, no window
            raise PartError(f"not a part's result (version {PART_VERSION}): {error}") from error
        failure = record.failure
        part = cls(
            clip_id=record.clip_id,
            source=record.source,
            window=window,
            provenance=record.provenance,
            duration_s=record.duration_s,
            failure=None if failure is None else Failure(failure.outcome, failure.error, failure.transient),
            elapsed_s=record.elapsed_s,
            damage=None if record.damage is None else Damage(**record.damage.model_dump()),
            pixel_aspect=record.pixel_aspect,
            turn=record.turn,
            **columns,
        )
        part._check()
        return part

    def _check(self) -> None:
        per_face = (self.track_ids, self.boxes, self.quality, self.flaws, self.logits, self.probability)
        frames, faces = len(self.t_s), len(self.frame)
        if len(self.index) != frames or any(len(column) != faces for column in per_face):
            raise PartError("a part's columns differ in length")
        scored = ~np.isnan(self.logits)
        keys = set(zip(self.frame.tolist(), self.track_ids.tolist(), strict=True))
        sound = (
            np.isfinite(self.t_s).all()
            and (np.diff(self.t_s) > 0).all()
            and all(t_s in self.window for t_s in self.t_s),
            (self.index >= 0).all() and (self.index <= _MAX_INDEX).all(),
            ((self.frame >= 0) & (self.frame < frames)).all() and (np.diff(self.frame) >= 0).all(),
            (self.track_ids >= 0).all() and len(keys) == faces,
            np.isfinite(self.boxes).all(),
            _in_unit(self.quality) and _in_unit(self.probability[scored]) and np.isfinite(self.logits[scored]).all(),
            np.isnan(self.probability[~scored]).all(),
            (self.flaws >= 0).all() and not self.flaws[scored].any(),
        )
        if not all(sound):
            raise PartError("a part's columns hold invalid values")


def window_of_newer(data: bytes) -> Window | None:
    """Which part a result is of that a newer version wrote: of a later form, or outcome; None if it is not one."""
    try:
        fields = json.loads(data)
        version, failure = fields["part"], fields.get("failure")
        later_outcome = isinstance(failure, dict) and str(failure["outcome"]) not in set(Outcome)
        newer = type(version) is int and (version > PART_VERSION or (version == PART_VERSION and later_outcome))
        return parse_window(fields["window"]) if newer else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


# Type of each column: stored (little-endian), and in memory.
_COLUMNS: Mapping[str, tuple[str, type[np.generic]]] = {
    "t_s": ("<f8", np.float64), "index": ("<i8", np.int64), "frame": ("<i4", np.int64), "track_ids": ("<i4", np.int64),
    "boxes": ("<f4", np.float32), "quality": ("<f4", np.float32), "logits": ("<f4", np.float32),
    "probability": ("<f4", np.float32), "flaws": ("<i1", np.int64),
}  # fmt: skip
# Columns that earlier workers did not write; they are filled with zeros.
_ADDED = frozenset({"flaws"})


_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _FailureRecord(Contract):
    outcome: Outcome
    error: str
    transient: bool


class _DamageRecord(Contract):
    ranges: tuple[tuple[_Time, _Time], ...]
    frames: Annotated[int, Field(ge=0)]
    truncated: bool
    end_s: _Time


class _PartRecord(Contract):
    part: Literal[1]
    clip_id: Id
    source: str
    window: str
    provenance: Provenance
    duration_s: _Time | None
    failure: _FailureRecord | None
    elapsed_s: _Time
    # Absent in results of earlier workers.
    damage: _DamageRecord | None = None
    pixel_aspect: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    turn: Annotated[int, Field(ge=0, lt=360, multiple_of=90)] = 0
    columns: dict[str, str]


def _packed(column: npt.NDArray[np.generic], stored: str) -> str:
    return base64.b64encode(np.ascontiguousarray(column, stored).tobytes()).decode()


def _unpacked(text: str, stored: str, dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    return np.frombuffer(base64.b64decode(text, validate=True), stored).astype(dtype)


def _in_unit(column: Floats) -> bool:
    return bool(((column >= 0) & (column <= 1)).all())
