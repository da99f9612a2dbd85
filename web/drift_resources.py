"""What the API gives about drift, as JSON; the last check is kept in this form, too."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from pipeline.drift.check import Drift, MeasureDrift
from pipeline.drift.reference import Reference
from pipeline.weights.age import DateSource, MadeWeights
from web.months import Month
from web.resources import Resource, utc
from web.review_resources import ShareResource


class WeightsResource(Resource):
    """Weights in use."""

    sha256: str
    name: str
    made_at: datetime | None = Field(description="null: unknown")
    source: DateSource = Field(description="how that is known; `announced`: promoted then, so made before")
    age_s: float | None = Field(description="seconds; null: unknown")

    @classmethod
    def of(cls, weights: MadeWeights) -> Self:
        """As JSON, with the age now."""
        made_s = weights.made_s
        return cls(
            sha256=weights.sha256,
            name=weights.name,
            made_at=None if made_s is None else utc(made_s),
            source=weights.source,
            age_s=None if made_s is None else max(0.0, time.time() - made_s),
        )


class ReferenceResource(Resource):
    """What is compared with."""

    made_at: datetime
    kind: Literal["manifest", "service"] = Field(description="crops of a manifest, or judged videos of a service")
    model: str
    weights_sha256: list[str] = Field(description="of the scores")

    @classmethod
    def of(cls, reference: Reference) -> Self:
        """As JSON."""
        return cls(
            made_at=utc(reference.made_at),
            kind=reference.origin.kind,
            model=reference.model,
            weights_sha256=reference.weights_sha256,
        )


class MovedResource(Resource):
    """A bin that moved."""

    bin: str
    reference: float = Field(description="share of the videos' values")
    now: float
    psi: float = Field(description="what it adds to the index")


class BinResource(Resource):
    """A bin."""

    bin: str
    reference: float = Field(description="share of the videos' values")
    now: float


class MeasureResource(Resource):
    """One measure."""

    name: str = Field(description="score, quality, face_width or outcome; measures may be added")
    videos: int
    reference_videos: int
    psi: float = Field(ge=0, description="population stability index")
    low: float = Field(description="interval of 95 %, without what chance adds")
    high: float
    limit: float = Field(description="an index from here on is an alarm")
    p: float = Field(description="how often chance gives such an index, at most")
    alarm: bool
    said: str = Field(description="in words")
    reference_median: float | None = Field(description="by interpolation; null for kinds")
    now_median: float | None
    moved: list[MovedResource] = Field(description="the bins that moved most")
    bins: list[BinResource]

    @classmethod
    def of(cls, found: MeasureDrift) -> Self:
        """As JSON."""
        return cls(
            name=found.name,
            videos=found.videos,
            reference_videos=found.reference_videos,
            psi=found.psi,
            low=found.low,
            high=found.high,
            limit=found.limit,
            p=found.p,
            alarm=found.alarm,
            said=found.said,
            reference_median=found.reference_median,
            now_median=found.now_median,
            moved=[MovedResource(bin=m.bin, reference=m.reference, now=m.now, psi=m.psi) for m in found.moved],
            bins=[
                BinResource(bin=name, reference=before, now=now)
                for name, before, now in zip(found.bins, found.reference, found.now, strict=True)
            ],
        )


class CheckResource(Resource):
    """A comparison of the last days with the reference."""

    checked_at: datetime
    since: datetime = Field(description="videos that arrived from then on")
    until: datetime = Field(description="and before then")
    videos: int = Field(description="each file once, 5,000 at most: the newest")
    alarms: list[str] = Field(description="measures that have drifted")
    measures: list[MeasureResource]
    missing: dict[str, str] = Field(description="measures that could not be compared, and why")

    @classmethod
    def of(cls, drift: Drift, videos: int, since_s: float, until_s: float) -> Self:
        """As JSON."""
        return cls(
            checked_at=utc(until_s),
            since=utc(since_s),
            until=utc(until_s),
            videos=videos,
            alarms=list(drift.alarms),
            measures=[MeasureResource.of(each) for each in drift.measures],
            missing=dict(drift.missing),
        )


class AucResource(Resource):
    """Area under the ROC curve."""

    value: float
    low: float = Field(description="interval of 95 %")
    high: float


class MonthResource(Resource):
    """Verdicts of a month's videos against what people decided."""

    month: str = Field(description="of arrival, YYYY-MM, in UTC")
    weights_sha256: list[str]
    model: str = Field(description="name of the weights; empty: unknown")
    age_s: float | None = Field(description="of the weights, when the month's middle video was judged")
    fakes: int = Field(description="videos with a score that people called fake")
    reals: int
    unscored: int = Field(description="videos without a score that people called fake or real")
    auc: AucResource | None = Field(description="null without both kinds")
    fakes_fake: ShareResource = Field(description="fakes that the label called fake")
    fakes_inconclusive: ShareResource
    fakes_real: ShareResource
    reals_fake: ShareResource = Field(description="reals that the label called fake")

    @classmethod
    def of(cls, found: Month) -> Self:
        """As JSON."""
        auc = found.auc
        return cls(
            month=found.month,
            weights_sha256=list(found.weights_sha256),
            model=found.model,
            age_s=found.age_s,
            fakes=found.fakes,
            reals=found.reals,
            unscored=found.unscored,
            auc=None
            if auc.value is None or auc.low is None or auc.high is None
            else AucResource(value=auc.value, low=auc.low, high=auc.high),
            fakes_fake=ShareResource.made(found.fakes_fake),
            fakes_inconclusive=ShareResource.made(found.fakes_inconclusive),
            fakes_real=ShareResource.made(found.fakes_real),
            reals_fake=ShareResource.made(found.reals_fake),
        )


class DriftResource(Resource):
    """How fresh the weights are."""

    weights: list[WeightsResource] = Field(description="in use; of an ensemble, all members; empty: not known yet")
    age_s: float | None = Field(description="of the oldest of them, in seconds; null: unknown")
    reference: ReferenceResource | None = Field(description="null: the service compares with nothing")
    check: CheckResource | None = Field(description="the last one; null: there was none with enough videos")
    why_not: str | None = Field(description="why the last days could not be compared; null: they were")
    months: list[MonthResource] = Field(description="the newest first")

    @classmethod
    def of(
        cls,
        weights: Sequence[MadeWeights],
        age_s: float | None,
        reference: Reference | None,
        check: CheckResource | None,
        why_not: str | None,
        months: Sequence[Month],
    ) -> Self:
        """As JSON."""
        return cls(
            weights=[WeightsResource.of(each) for each in weights],
            age_s=age_s,
            reference=None if reference is None else ReferenceResource.of(reference),
            check=check,
            why_not=why_not,
            months=[MonthResource.of(each) for each in months],
        )
