"""/v1/audit: the log of who did what, and its seals."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from web import audit
from web.keys import Role
from web.resources import ProblemResource
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1/audit",
    tags=["audit"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


class EntryResource(BaseModel):
    """An entry of the log."""

    n: int = Field(description="its number, from 1")
    at: str = Field(description="in UTC, to the microsecond")
    kind: str = Field(description="what it is about; kinds may be added")
    by: str | None = Field(description="id of the key of who did it; null: the service, or somebody at its machine")
    video: str | None = Field(description="id of the video that it is about")
    data: dict[str, Any] = Field(description="further facts")
    before: str = Field(description="hash of the entry before it; 64 zeros for the first one")
    hash: str = Field(description="sha256 of the entry's JSON, as `text` has it")
    text: str = Field(description="the entry's JSON, byte for byte")


class EntryPage(BaseModel):
    """Some entries, by their numbers."""

    entries: list[EntryResource]


class SealResource(BaseModel):
    """The signed end of a day: to be kept elsewhere."""

    day: str = Field(description="in UTC")
    n: int = Field(description="number of the last entry of the day")
    hash: str = Field(description="of that entry")
    signature: str = Field(description="Ed25519, in hex, over the lines `unmask audit seal 1`, day, n and hash")


class SealList(BaseModel):
    """All seals, by day."""

    seals: list[SealResource]


@router.get("", response_model=EntryPage)
def list_entries(
    service: TheService,
    caller: TheCaller,
    after: Annotated[int, Query(ge=0, lt=2**31, description="only entries behind this number")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> EntryPage:
    """Entries of the audit log, by time. Takes role admin."""
    caller.require(Role.ADMIN)
    found = audit.entries(service.database.read(), after, limit)
    return EntryPage(entries=[EntryResource(**each.values, hash=each.hash, text=each.text) for each in found])


@router.get("/seals", response_model=SealList)
def list_seals(service: TheService, caller: TheCaller) -> SealList:
    """The signed ends of all days: kept elsewhere, they show whether the log was replaced. Takes role admin."""
    caller.require(Role.ADMIN)
    return SealList(
        seals=[
            SealResource(day=each.day, n=each.n, hash=each.hash, signature=each.signature)
            for each in audit.seals(service.database.read())
        ]
    )
