"""The list's form: which videos it shows, in the words of its menus."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import urlencode

from fastapi import Query

from pipeline.contracts import Label, Outcome, SourceClass, State, Strength
from web.keys import Caller, Role
from web.listing import Filter, Sort
from web.rounds import Round
from web.routes.choosing import MAX_NAME, only_own

_AGE: Final = re.compile(r"(over)?(\d{1,4})([hd])")
_HOUR_S: Final = 3600.0
_MAX_PEOPLE: Final = 2**31

_Named = TypeVar("_Named", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of the form; what they do not know is "any".

    Attributes:
        show: a round, label, outcome or state, as `label:fake`.
        find: part of a name.
        source: class of source.
        strength: of the evidence.
        people: at least this many.
        age: arrived within, as `24h` or `7d`, or before that, as `over7d`.
    """

    show: str = ""
    find: str = ""
    source: str = ""
    strength: str = ""
    people: str = ""
    age: str = ""
    sort: Sort = "-created"

    def query(self, **more: str) -> str:
        """The part of the list's address after `?`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)} | more
        return urlencode({name: value for name, value in values.items() if value})

    def filter(self, caller: Caller) -> Filter:
        """What the list shows to somebody."""
        kind, _, value = self.show.partition(":")
        found = Filter(
            only_own(caller),
            source_class=_named(SourceClass, self.source),
            name=self.find or None,
            strength=_named(Strength, self.strength),
            people=int(self.people) if self.people.isdecimal() and int(self.people) < _MAX_PEOPLE else None,
            hides_golden=caller.key.role is Role.REVIEW,
        )
        if (age := _AGE.fullmatch(self.age)) is not None:
            moment_s = time.time() - int(age[2]) * _HOUR_S * (24 if age[3] == "d" else 1)
            found = replace(found, to_s=moment_s) if age[1] else replace(found, from_s=moment_s)
        if kind == "round" and caller.key.role >= Role.SENIOR:
            return replace(found, round=_named(Round, value))
        if kind == "decided":
            return replace(found, decided={"yes": True, "no": False}.get(value))
        if kind == "label":
            return replace(found, label=_named(Label, value))
        if kind == "outcome":
            return replace(found, outcome=_named(Outcome, value))
        return replace(found, state=_named(State, value)) if kind == "state" else found


def form_of(
    show: Annotated[str, Query(max_length=40)] = "",
    find: Annotated[str, Query(max_length=MAX_NAME)] = "",
    source: Annotated[str, Query(max_length=40)] = "",
    strength: Annotated[str, Query(max_length=40)] = "",
    people: Annotated[str, Query(max_length=6)] = "",
    age: Annotated[str, Query(max_length=10)] = "",
    sort: Sort = "-created",
) -> Form:
    """The form as the address has it."""
    return Form(show, find, source, strength, people, age, sort)


def api_query(chosen: Filter, sort: Sort) -> str:
    """The same choice as parameters of the API."""
    names = ("state", "outcome", "label", "source_class", "name", "round", "strength", "people")
    values: dict[str, Any] = {name: getattr(chosen, name) for name in names}
    for name, unix_s in (("created_from", chosen.from_s), ("created_to", chosen.to_s)):
        values[name] = None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat()
    return urlencode({name: value for name, value in values.items() if value is not None} | {"sort": sort})


def _named(kind: type[_Named], text: str) -> _Named | None:
    return kind(text) if text in list(kind) else None
