"""Server-sent events, as the HTML standard has them; only what the service sends."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Attributes:
        kind: state, progress, decision or deleted; others may come.
        data: of it, from JSON.
    """

    kind: str
    data: Any


def events(lines: Iterable[str]) -> Iterator[Event | None]:
    """The events of a stream; None for a line that only keeps the connection open."""
    kind, data = "message", list[str]()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield Event(kind, json.loads("\n".join(data)))
            kind, data = "message", []
        elif name == "":
            yield None
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
