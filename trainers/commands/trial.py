"""The options of a canary, for the commands that announce weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.contracts import Announcement

_SMALLEST, _LARGEST = 0.001, 0.5

Canary = Annotated[
    str | None,
    typer.Option(
        metavar="SHARE", help="Let the weights judge this share of the videos first, such as 10%; 50% at most."
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(help="By how much the canary's share of videos called fake may differ.", min=0.0, max=0.99),
]


def parse_share(text: str) -> float:
    """A share such as 10% or 0.1.

    Raises:
        typer.BadParameter: it is neither, or not in 0..50%.
    """
    try:
        share = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not _SMALLEST <= share <= _LARGEST:
        raise typer.BadParameter(f"--canary takes a share from 0.1% to 50%, such as 10%; got {text!r}")
    return share


def state_of(announcement: Announcement) -> str:
    """What announced weights are."""
    share: float | None = getattr(announcement, "share", None)
    return "active" if share is None else f"canary of {share:.1%}"
