"""/v1/videos/{id}/credentials: what the maker of a file says about it (C2PA)."""

from __future__ import annotations

from fastapi import APIRouter

from pipeline.credentials import Credentials
from web.problems import not_found
from web.resources import ProblemResource
from web.routes.videos import seen
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["videos"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.get("/videos/{id}/credentials", response_model=Credentials)
def get_credentials(id: str, service: TheService, caller: TheCaller) -> Credentials:
    """The Content Credentials of a file, as they were found when it was judged. They change no verdict."""
    report = service.videos.report(seen(service, caller, id))
    if report is None or report.credentials is None:
        raise not_found("credentials: the video is not judged yet, its file could not be opened, or nobody looked")
    return report.credentials
