"""The page about reviewing: agreement, known answers, audits, what was done to many videos."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from web.actions import Action
from web.agreement import Agreement, Share
from web.keys import Role
from web.pages.rendering import moment, page, signed_in
from web.pages.text import TEXT
from web.service import TheService

router = APIRouter()

# Agreement of fewer clips says little, and is not shown as a number.
_LEAST: Final = 10


@router.get("/quality")
def quality_page(request: Request, service: TheService) -> Response:
    """Agreement, known answers, audits, log."""
    caller = signed_in(request, service)
    if caller is None:
        return RedirectResponse("/login", 303)
    if caller.key.role < Role.SENIOR:
        return page(service, "missing.html.j2", caller, 404)
    names = {key.id: key.name for key in service.keys.all()}
    found = service.quality.quality()
    reviewers = [
        {
            "name": names.get(each.key_id, each.key_id),
            "decisions": each.decisions,
            "skips": each.skips,
            "all": _agreement(each.agreement),
            "classes": [(class_.value, _agreement(agreed)) for class_, agreed in each.by_class.items()],
            "golden": _share(each.golden),
        }
        for each in found.reviewers
    ]
    return page(
        service,
        "quality.html.j2",
        caller,
        overall=_agreement(found.agreement),
        reviewers=reviewers,
        audits=[(TEXT[label.value], _share(share)) for label, share in found.audits.items()],
        rounds=[
            (TEXT[f"open_{round_.value}{'_one' if n == 1 else ''}"], f"/videos?show=round:{round_}", n)
            for round_, n in service.list.rounds().items()
        ],
        log=[_entry(each, names) for each in service.actions.last()],
    )


def _agreement(found: Agreement) -> dict[str, Any]:
    """Numbers as they are shown."""
    if found.clips < _LEAST or found.observed is None:
        return {"clips": found.clips, "observed": "", "kappa": TEXT["too_few"] if found.clips else ""}
    kappa = TEXT["undefined"]
    if found.kappa is not None and found.low is not None and found.high is not None:
        kappa = f"{found.kappa:.2f} ({found.low:.2f} … {found.high:.2f})"
    return {"clips": found.clips, "observed": f"{found.observed:.0%}", "kappa": kappa}


def _share(found: Share) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"{found.hits} / {found.of} ({found.low:.0%} … {found.high:.0%})"


def _entry(action: Action, names: dict[str, str]) -> dict[str, Any]:
    data = action.data
    videos = data.get("videos", [data["video"]] if "video" in data else [])
    said = data.get("decision") or data.get("answer")
    return {
        "what": TEXT[f"action_{action.kind.value}"],
        "said": TEXT[said] if said else "",
        "videos": len(videos),
        "reason": data.get("reason", ""),
        "by": names.get(action.by, action.by),
        "at": moment(action.made_s),
    }
