"""A scan's result for a clip: its verdict, and the pictures for the report."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.contracts import Verdict
from pipeline.credentials import Credentials
from pipeline.known.prints import ClipPrint
from pipeline.portraits import Portrait


@dataclass(frozen=True, slots=True)
class AppliedThresholds:
    """The thresholds a clip was judged by.

    Attributes:
        real: below this probability the clip is called real.
        fake: from this probability on it is called fake.
        fpr: share of real clips called fake, at which `fake` was chosen on validation data.
    """

    real: float
    fake: float
    fpr: float


@dataclass(frozen=True, slots=True)
class ClipReport:
    """A verdict and the pictures that go with it; portraits of tracks outside `verdict.people` are not shown.

    Attributes:
        transient: another try may succeed.
        credentials: what the file's maker says about it; None: nobody looked. They change no verdict.
        print: of the clip, where the scanner makes prints; of several video streams, that of the deciding one.
    """

    verdict: Verdict
    suspicious: tuple[Portrait, ...] = ()
    clearest: tuple[Portrait, ...] = ()
    thresholds: AppliedThresholds | None = None
    transient: bool = False
    credentials: Credentials | None = None
    print: ClipPrint | None = None
