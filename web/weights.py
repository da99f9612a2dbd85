"""Which weights judged here, and when they were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from pipeline.weights.age import DateSource, MadeWeights, oldest_s
from web.database import Database

_RANK: Final = {source: i for i, source in enumerate(DateSource)}


class KnownWeights:
    """The weights of a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, weights: Iterable[MadeWeights]) -> None:
        """Keep when weights were made; a surer source replaces another one, and an earlier promotion a later one."""
        known = self.all()
        with self._database.write() as rows:
            for each in weights:
                if _is_better(each, known.get(each.sha256)):
                    rows.execute(
                        "INSERT OR REPLACE INTO weights (sha256, name, made_s, source) VALUES (?, ?, ?, ?)",
                        (each.sha256, each.name, each.made_s, each.source),
                    )

    def all(self) -> dict[str, MadeWeights]:
        """By sha256."""
        rows = self._database.read().execute("SELECT * FROM weights")
        return {
            row["sha256"]: MadeWeights(row["sha256"], row["name"], row["made_s"], DateSource(row["source"]))
            for row in rows
        }

    def of(self, sha256: Sequence[str]) -> list[MadeWeights]:
        """The members of an ensemble; those that are not known have no date."""
        known = self.all()
        return [known.get(each, MadeWeights(each, "", None, DateSource.UNKNOWN)) for each in sha256]

    def made_s(self, sha256: Sequence[str]) -> float | None:
        """When the oldest member was made, Unix seconds; None: unknown."""
        return oldest_s(self.of(sha256))


def _is_better(new: MadeWeights, old: MadeWeights | None) -> bool:
    if old is None or _RANK[new.source] != _RANK[old.source]:
        return old is None or _RANK[new.source] < _RANK[old.source]
    return new.made_s is not None and (old.made_s is None or new.made_s < old.made_s)
