"""/v1/videos/{id}/crops/{track}/{n}/explanation: what the score of a crop depends on."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field

from web.problems import Code, ProblemError
from web.resources import ProblemResource, Resource
from web.routes.videos import seen
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1/videos/{id}/crops/{track}/{n}",
    tags=["videos"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


class ExplanationResource(Resource):
    """What the score of one crop depends on; changes are in log-odds of the network, before calibration."""

    t_s: float = Field(description="of its frame")
    probability: float = Field(description="of fake: that of this face in the record")
    holds: bool = Field(
        description="the marked area changed the score more than any random one, and than the median one either way"
    )
    says: str = Field(description="the answer in one sentence")
    towards: Literal["real", "fake"] = Field(description="the other side than that of the score")
    share: float = Field(description="of the crop that was hidden")
    change: float = Field(description="towards that side, by hiding the marked area")
    random_areas: int = Field(description="areas of the same size and shape at random places")
    random_median: float = Field(description="change by hiding one of them, the median")
    random_max: float = Field(description="change by hiding one of them, the largest towards that side")
    links: dict[str, str] = Field(description="crop; picture: the map, only if it holds")


@router.get("/explanation", response_model=ExplanationResource)
def get_explanation(id: str, track: int, n: int, service: TheService, caller: TheCaller) -> ExplanationResource:
    """Which area of the crop the score depends on, and whether that holds: measured at the first request.

    A second one for the same crop gets what was found. It takes a video that was uploaded, and the weights that judged
    it.
    """
    found = service.explainer.explain(seen(service, caller, id), track, n)
    crop = f"/v1/videos/{id}/crops/{track}/{n}"
    links = {"crop": crop}
    if found.picture is not None:
        links["picture"] = f"{crop}/explanation.png"
    return ExplanationResource(t_s=found.t_s, probability=found.probability, links=links, **found.facts)


@router.get("/explanation.png", response_class=Response, responses={200: {"content": {"image/png": {}}}})
def get_explanation_picture(id: str, track: int, n: int, service: TheService, caller: TheCaller) -> Response:
    """The map over the crop; a map that does not hold is not shown."""
    found = service.explainer.explain(seen(service, caller, id), track, n)
    if found.picture is None:
        raise ProblemError(409, Code.CONFLICT, found.facts["says"])
    service.auditor.looked(caller.key.id, id)
    return Response(found.picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
