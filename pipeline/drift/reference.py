"""The file that drift is measured against: counts of each video in fixed bins, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.drift.measures import MEASURES, Counts, Measure
from pipeline.drift.stability import Shares, shares_of

# Fewer videos say too little for a reference, or for a check.
LEAST_VIDEOS: Final = 30
# Of a measure of a reference: some of more are drawn by chance. With more, a check takes long and finds nothing more.
MOST_VIDEOS: Final = 5_000
_MAX_BYTES: Final = 64 << 20

_Row = list[Annotated[int, Field(ge=0, lt=2**31)]]


class DriftError(UnmaskError):
    """A file that is no reference, or too few videos for one."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Origin(_Strict):
    """Where the videos of a reference are from.

    Attributes:
        kind: crops of a manifest, or the judged videos of a service.
        manifest_sha256, split, label: of the rows.
        since_s, until_s: when the videos of a service arrived, Unix seconds.
    """

    kind: Literal["manifest", "service"]
    manifest_sha256: str | None = None
    split: str | None = None
    label: str | None = None
    since_s: float | None = None
    until_s: float | None = None


class MeasureCounts(_Strict):
    """One measure of all videos that have it.

    Attributes:
        edges, kinds: as in `Measure`; a version with other ones does not take the file.
        videos: [V][B], how many values of each video are in each bin.
    """

    edges: list[float]
    kinds: list[str]
    videos: list[_Row]


class Reference(_Strict):
    """What is typical; per-video counts, so that a test can draw whole videos. No pictures, names or ids.

    Attributes:
        made_at: Unix seconds.
        weights_sha256: of the weights that gave the scores, members of an ensemble in their order.
        model: their name.
        measures: by name.
    """

    schema_: Literal[1] = Field(default=1, alias="schema")
    made_at: float
    origin: Origin
    weights_sha256: list[str]
    model: str
    measures: dict[str, MeasureCounts]

    @model_validator(mode="after")
    def _is_of_these_bins(self) -> Reference:
        known = {measure.name: measure for measure in MEASURES}
        for name, found in self.measures.items():
            measure = known.get(name)
            if measure is None:
                continue
            if tuple(found.edges) != measure.edges or tuple(found.kinds) != measure.kinds:
                raise ValueError(f"{name} has the bins of another version of Unmask: make the reference again")
            if any(len(row) != measure.bins or not sum(row) for row in found.videos):
                raise ValueError(f"{name}: each video has {measure.bins} counts, of which one is above 0")
        return self

    def shares(self, measure: Measure) -> Shares:
        """The distribution of each video: float64 [V, B]; empty without this measure."""
        found = self.measures.get(measure.name)
        return table([] if found is None else found.videos, measure)

    def to_json(self) -> str:
        """The file's contents."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def table(videos: Sequence[Sequence[int]], measure: Measure) -> Shares:
    """The distribution of each video that has any values: float64 [N, B]."""
    counts: npt.NDArray[np.int64] = np.array(videos, np.int64).reshape(-1, measure.bins)
    return shares_of(counts)


def make_reference(
    counts: Sequence[Counts], origin: Origin, *, weights_sha256: Sequence[str], model: str, made_at: float
) -> Reference:
    """A reference of these videos.

    Args:
        counts: of each video; measures may be missing. At most `MOST_VIDEOS` of each measure are kept.
        origin: where they are from.
        weights_sha256: of the weights that gave all scores among the counts.
        model: their name.
        made_at: Unix seconds.

    Raises:
        DriftError: no measure has enough videos.
    """
    measures = {}
    for measure in MEASURES:
        videos = [list(each[measure.name]) for each in counts if sum(each.get(measure.name, ()))]
        if len(videos) > MOST_VIDEOS:
            rng = np.random.default_rng(0)
            videos = [videos[i] for i in rng.choice(len(videos), MOST_VIDEOS, replace=False)]
        # In order of their counts: nothing is left of the order in which people handed them in.
        videos.sort()
        if len(videos) >= LEAST_VIDEOS:
            measures[measure.name] = MeasureCounts(edges=list(measure.edges), kinds=list(measure.kinds), videos=videos)
    if not measures:
        most = max((sum(bool(sum(each.get(measure.name, ()))) for each in counts) for measure in MEASURES), default=0)
        raise DriftError(
            f"a reference needs a measure that at least {LEAST_VIDEOS} videos have; of {len(counts)} videos, at most "
            f"{most} have one (crops with landmarks have scores and quality, those of known source width a face width)"
        )
    values: Mapping[str, Any] = {
        "made_at": made_at,
        "origin": origin,
        "weights_sha256": list(weights_sha256),
        "model": model,
        "measures": measures,
    }
    return Reference(**values)


def read_reference(file: Path) -> Reference:
    """Read a reference.

    Raises:
        DriftError: it cannot be read, or is no reference of this version.
    """
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise DriftError(f"{file}: larger than any reference")
        return Reference.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DriftError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise DriftError(f"{file}: no reference of this version: {where}: {first['msg']}") from error


def write_reference(file: Path, reference: Reference) -> None:
    """Write it, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(file) as opened:
        opened.write(reference.to_json().encode())
