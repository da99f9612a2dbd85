"""The page about freshness: age of the weights, drift, verdicts by month."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from web.drift_resources import BinResource, CheckResource, DriftResource, MeasureResource, MonthResource
from web.keys import Role
from web.pages.drift_text import WORDS
from web.pages.rendering import moment, page, signed_in
from web.pages.text import TEXT
from web.review_resources import ShareResource
from web.service import TheService

router = APIRouter()

_DAY_S: Final = 86_400.0
# Of a chart, in its own units; it grows with the page.
_WIDTH, _HEIGHT, _GAP = 480.0, 120.0, 0.25


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of a chart: two bars next to each other, in the units of the view box, y down.

    Attributes:
        x: of the reference's bar.
        width: of each of the two.
        reference, now: heights.
        said: the bin with both shares.
    """

    x: float
    width: float
    reference: float
    now: float
    said: str


@router.get("/drift")
def drift_page(request: Request, service: TheService) -> Response:
    """Age of the weights, what has drifted, and the months."""
    caller = signed_in(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    if caller.key.role < Role.SENIOR:
        return page(service, "missing.html.j2", caller, 404)
    found = service.drift.report()
    check = found.check
    return page(
        service,
        "drift.html.j2",
        caller,
        words=WORDS,
        weights=[
            (each.name or WORDS["unnamed"], each.sha256, _age_text(each.age_s), _made(each)) for each in found.weights
        ],
        reference=_reference(found),
        why_not=found.why_not,
        checked=None if check is None else _checked(check),
        alarms=[] if check is None else [each.said for each in check.measures if each.alarm],
        measures=[] if check is None else [_measure(each) for each in check.measures],
        missing=[] if check is None else [(WORDS[f"drift_{name}"], why) for name, why in check.missing.items()],
        months=[_month(each) for each in found.months],
        size=(_WIDTH, _HEIGHT),
    )


def _age_text(age_s: float | None) -> str:
    if age_s is None:
        return WORDS["age_unknown"]
    days = int(age_s // _DAY_S)
    return WORDS["age_today"] if days < 1 else f"{days} {WORDS['day_old'] if days == 1 else WORDS['days_old']}"


def _made(weights: Any) -> str:
    return (
        ""
        if weights.made_at is None
        else f"{WORDS[f'made_{weights.source}']} {moment(weights.made_at.timestamp())[:10]}"
    )


def _reference(found: DriftResource) -> str:
    reference = found.reference
    if reference is None:
        return ""
    made = moment(reference.made_at.timestamp())[:10]
    return f"{WORDS[f'reference_{reference.kind}']} {reference.model}, {made}"


def _checked(check: CheckResource) -> str:
    since, until = (moment(each.timestamp())[:10] for each in (check.since, check.until))
    return f"{check.videos} {WORDS['videos_from']} {since} {TEXT['to']} {until}"


def _measure(found: MeasureResource) -> dict[str, Any]:
    """Numbers as they are shown, and the chart."""
    return {
        "name": WORDS[f"drift_{found.name}"],
        "alarm": found.alarm,
        "said": found.said,
        "psi": f"{found.psi:.2f}",
        "interval": f"{found.low:.2f} … {found.high:.2f}",
        "limit": f"{found.limit:.2f}",
        "videos": found.videos,
        "bars": chart(found.bins),
        "ends": (found.bins[0].bin, found.bins[-1].bin),
        "rows": [(each.bin, f"{each.reference:.1%}", f"{each.now:.1%}") for each in found.bins],
    }


def chart(bins: list[BinResource]) -> list[Bar]:
    """Bars for each bin; the highest fills the chart."""
    top = max(max(each.reference, each.now) for each in bins) or 1.0
    step = _WIDTH / len(bins)
    width = step * (1 - _GAP) / 2
    return [
        Bar(
            i * step + step * _GAP / 2,
            width,
            _HEIGHT * each.reference / top,
            _HEIGHT * each.now / top,
            f"{each.bin}: {each.now:.1%}, {each.reference:.1%} {WORDS['in_reference']}",
        )
        for i, each in enumerate(bins)
    ]


def _month(found: MonthResource) -> dict[str, Any]:
    auc = found.auc
    return {
        "month": found.month,
        "model": found.model or found.weights_sha256[0][:8],
        "age": "" if found.age_s is None else f"{found.age_s / _DAY_S:.0f}",
        "videos": f"{found.fakes} / {found.reals}",
        "auc": "" if auc is None else f"{auc.value:.3f} ({auc.low:.2f} … {auc.high:.2f})",
        "fakes_fake": _share(found.fakes_fake),
        "fakes_inconclusive": _share(found.fakes_inconclusive),
        "fakes_real": _share(found.fakes_real),
        "reals_fake": _share(found.reals_fake),
    }


def _share(found: ShareResource) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{found.hits / found.of:.0%} ({found.low:.0%} … {found.high:.0%})"
