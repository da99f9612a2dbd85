"""/v1/videos/{id}/similar: videos that show the same."""

from __future__ import annotations

from fastapi import APIRouter

from web.known import known_decision
from web.resources import KnownResource, ProblemResource, SimilarPage, SimilarResource
from web.routes.choosing import only_own
from web.routes.videos import seen
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["videos"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.get("/videos/{id}/similar", response_model=SimilarPage)
def get_similar(id: str, service: TheService, caller: TheCaller) -> SimilarPage:
    """Videos with the same bytes, pictures or URI, of those that this key may see."""
    found = service.known.similar(seen(service, caller, id), only_own(caller))
    known = known_decision(found)
    return SimilarPage(
        known=None if known is None else KnownResource.of_decision(known),
        similar=[SimilarResource.of(each) for each in found],
    )
