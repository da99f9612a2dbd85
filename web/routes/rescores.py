"""/v1/videos/{id}/rescores: verdicts on a video by other weights."""

from __future__ import annotations

from datetime import datetime
from typing import Self
from urllib.parse import quote

from fastapi import APIRouter, Response
from pydantic import Field

from pipeline.contracts import Label, Outcome
from web.keys import Role
from web.rescores import Rescored
from web.resources import ProblemResource, Resource, utc
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["videos"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


class RescoreResource(Resource):
    """A verdict on a video by other weights."""

    run: str = Field(description="of `unmask rescore`")
    weights: str
    weights_sha256: list[str]
    finished_at: datetime
    outcome: Outcome
    label: Label | None = Field(description="null unless scored")
    probability: float | None = Field(description="of the most suspicious part; null unless scored")
    links: dict[str, str]

    @classmethod
    def of(cls, rescored: Rescored) -> Self:
        """As JSON."""
        after = rescored.after
        return cls(
            run=rescored.run,
            weights=after.weights,
            weights_sha256=list(after.sha256),
            finished_at=utc(rescored.finished_s),
            outcome=after.outcome,
            label=after.label,
            probability=after.probability,
            links={"record": f"/v1/videos/{rescored.video}/rescores/{quote(rescored.run)}/record"},
        )


@router.get("/videos/{id}/rescores", response_model=list[RescoreResource])
def list_rescores(id: str, service: TheService, caller: TheCaller) -> list[RescoreResource]:
    """What other weights say of a video, by run, the oldest first; its verdict stays. Takes role review."""
    caller.require(Role.REVIEW)
    return [RescoreResource.of(each) for each in service.rescores.of_video(service.videos.get(id))]


@router.get(
    "/videos/{id}/rescores/{run}/record",
    response_class=Response,
    responses={200: {"content": {"application/json": {}}}},
)
def get_rescored_record(id: str, run: str, service: TheService, caller: TheCaller) -> Response:
    """The whole record of a run of `unmask rescore`. Takes role review."""
    caller.require(Role.REVIEW)
    return Response(service.rescores.record(service.videos.get(id), run), media_type="application/json")
