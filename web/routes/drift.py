"""/v1/drift and /v1/metrics: how fresh the weights are."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from web.drift_resources import DriftResource
from web.keys import Role
from web.resources import ProblemResource
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["drift"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.get("/drift", response_model=DriftResource)
def drift(service: TheService, caller: TheCaller) -> DriftResource:
    """Age of the weights, what arrives against the reference, verdicts by month. Takes role senior."""
    caller.require(Role.SENIOR)
    return service.drift.report()


@router.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
def metrics(service: TheService, caller: TheCaller) -> Response:
    """Age of the weights and drift, for Prometheus. Any key may ask."""
    return Response(service.drift.metrics(), media_type=CONTENT_TYPE_LATEST)
