"""The gate's conditions as a table."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.evaluation.tables import NOTHING, Table
from trainers.retraining.rules import Check


def table_of(checks: Sequence[Check]) -> Table:
    """One row for each condition, those that do not hold first."""
    rows = []
    for check in sorted(checks, key=lambda check: check.passed):
        found = check.difference
        figures = (NOTHING,) * 4
        if found is not None:
            ends = "no interval" if found.low is None else f"{found.low:+.4f} to {found.high:+.4f}"
            figures = (f"{found.theirs:.4f}", f"{found.ours:.4f}", f"{found.value:+.4f}", ends)
        rows.append(
            (
                check.name,
                "passes" if check.passed else "REFUSED",
                *figures,
                check.text if found is None or not check.passed else "",
            )
        )
    columns = ("condition", "", "AUC, active", "AUC, new", "difference", "95 % interval", "")
    return Table("Gate", columns, tuple(rows), "differences over the same videos, by a bootstrap over their groups")
