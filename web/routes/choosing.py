"""Which videos a request is about, from its parameters."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from pydantic import AwareDatetime

from pipeline.contracts import Label, Outcome, SourceClass, State, Strength
from web.keys import Caller, Role
from web.listing import Filter
from web.rounds import Round
from web.service import TheCaller

MAX_NAME = 255
_MAX_PEOPLE = 2**31


def only_own(caller: Caller) -> str | None:
    """The key whose videos the caller may see; None: all."""
    return None if caller.key.role >= Role.REVIEW else caller.key.id


def _chosen(
    caller: TheCaller,
    state: State | None = None,
    outcome: Outcome | None = None,
    label: Label | None = None,
    source_class: SourceClass | None = None,
    name: Annotated[str | None, Query(max_length=MAX_NAME, description="part of the name")] = None,
    decided: Annotated[bool | None, Query(description="by people, or by the label where it decides")] = None,
    round: Annotated[Round | None, Query(description="of reviewing; takes role senior")] = None,
    strength: Annotated[Strength | None, Query(description="of the evidence")] = None,
    people: Annotated[int | None, Query(ge=0, lt=_MAX_PEOPLE, description="at least this many")] = None,
    created_from: AwareDatetime | None = None,
    created_to: Annotated[AwareDatetime | None, Query(description="before this moment")] = None,
) -> Filter:
    if round is not None:
        caller.require(Role.SENIOR)  # else a reviewer would learn where others disagree
    return Filter(
        only_own(caller),
        state,
        outcome,
        label,
        source_class,
        name or None,
        decided,
        round,
        strength,
        people,
        None if created_from is None else created_from.timestamp(),
        None if created_to is None else created_to.timestamp(),
        hides_golden=caller.key.role is Role.REVIEW,
    )


Chosen = Annotated[Filter, Depends(_chosen)]
