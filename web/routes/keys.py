"""/v1/keys: who may use the service. Takes role admin, except for one's own."""

from __future__ import annotations

from fastapi import APIRouter

from web.keys import Role
from web.problems import Code, ProblemError
from web.resources import KeyRequest, KeyResource, NewKey, ProblemResource
from web.service import TheCaller, TheService

router = APIRouter(
    prefix="/v1",
    tags=["keys"],
    responses={"4XX": {"model": ProblemResource, "content": {"application/problem+json": {}}}},
)


@router.get("/me", response_model=KeyResource)
def get_me(caller: TheCaller) -> KeyResource:
    """The key of this request."""
    return KeyResource.of(caller.key)


@router.get("/keys", response_model=list[KeyResource])
def list_keys(service: TheService, caller: TheCaller) -> list[KeyResource]:
    """All keys, with those that ended."""
    caller.require(Role.ADMIN)
    return [KeyResource.of(key) for key in service.keys.all()]


@router.post("/keys", status_code=201, response_model=NewKey)
def make_key(wanted: KeyRequest, service: TheService, caller: TheCaller) -> NewKey:
    """Make a key; its text is in this answer only."""
    caller.require(Role.ADMIN)
    try:
        expires_s = None if wanted.expires_at is None else wanted.expires_at.timestamp()
        key, text = service.keys.create(wanted.name, Role.of(wanted.role), expires_s=expires_s, by=caller.key.id)
    except (ValueError, OverflowError) as error:
        raise ProblemError(422, Code.INVALID, str(error)) from error
    return NewKey.made(key, text)


@router.delete("/keys/{id}", response_model=KeyResource)
def revoke_key(id: str, service: TheService, caller: TheCaller) -> KeyResource:
    """End a key and its sessions. The key that asks cannot end itself, so that one admin remains."""
    caller.require(Role.ADMIN)
    if id == caller.key.id:
        raise ProblemError(409, Code.CONFLICT, "a key cannot revoke itself: take another admin's")
    return KeyResource.of(service.keys.revoke(id, caller.key.id))
