"""How well clips are reviewed: agreement, clips whose answer is known, audits; and the decisions for others to use."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pipeline.contracts import Label, SourceClass
from web.agreement import Agreement, Share, agreement, share
from web.database import Database
from web.rounds import Choice, Round, contradicts

# Hex digits of a pseudonym: 48 bits.
_PSEUDONYM_DIGITS: Final = 12
_ROWS: Final = 500


@dataclass(frozen=True, slots=True)
class ReviewerQuality:
    """One reviewer.

    Attributes:
        key_id: theirs.
        decisions: on clips, that count.
        skips: clips that they did not want to decide.
        agreement: with others, on clips where neither saw the other's decision.
        by_class: the same for each class of source that there is.
        golden: right decisions on clips whose answer is known.
    """

    key_id: str
    decisions: int
    skips: int
    agreement: Agreement
    by_class: dict[SourceClass, Agreement]
    golden: Share


@dataclass(frozen=True, slots=True)
class Quality:
    """All of the reviewing.

    Attributes:
        agreement: over all pairs of decisions of people who did not see each other's.
        audits: audited clips, and those of them whose label people found wrong, for each label.
    """

    agreement: Agreement
    reviewers: list[ReviewerQuality]
    audits: dict[Label, Share]


class QualityReport:
    """Reads a database. Safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as rows:
            rows.execute(
                "INSERT OR IGNORE INTO secrets (name, value) VALUES ('pseudonyms', ?)", (secrets.token_bytes(32),)
            )
            (self._secret,) = rows.execute("SELECT value FROM secrets WHERE name = 'pseudonyms'").fetchone()

    def quality(self, *, without: Collection[str] = ()) -> Quality:
        """How well clips were reviewed so far.

        Args:
            without: ids of keys: pairs of decisions with one of these people's do not count for agreement.
        """
        rows = self._database.read()
        pairs: list[tuple[Choice, Choice]] = []
        of: dict[str, dict[SourceClass, list[tuple[Choice, Choice]]]] = defaultdict(lambda: defaultdict(list))
        query = (
            "SELECT a.key_id AS one, b.key_id AS other, a.decision AS first, b.decision AS second, v.source_class "
            "FROM decisions AS a JOIN decisions AS b ON a.video = b.video AND a.n < b.n AND a.key_id != b.key_id "
            "JOIN videos AS v ON v.n = a.video WHERE a.blind AND b.blind AND a.track IS NULL AND b.track IS NULL "
            "AND a.undone_s IS NULL AND b.undone_s IS NULL AND v.golden IS NULL"
        )
        for row in rows.execute(query):
            if row["one"] in without or row["other"] in without:
                continue
            first, second = Choice(row["first"]), Choice(row["second"])
            class_ = SourceClass(row["source_class"])
            pairs.append((first, second))
            of[row["one"]][class_].append((first, second))
            of[row["other"]][class_].append((second, first))
        return Quality(
            agreement(pairs), [self._reviewer(key, found, of) for key, found in self._counts()], self._audits()
        )

    def pseudonym(self, key_id: str) -> str:
        """A name for a reviewer that says nothing about them, the same in each export of this service."""
        return hmac.digest(self._secret, b"reviewer:" + key_id.encode(), hashlib.sha256).hex()[:_PSEUDONYM_DIGITS]

    def export(self, *, comments: bool) -> Iterator[str]:
        """Lines of JSON, one for each decision that counts, by time.

        Args:
            comments: with what reviewers wrote, which may name people.
        """
        query = (
            "SELECT d.*, v.id, v.sha256, v.source_class, v.label, v.probability, v.outcome, v.round, v.answer, "
            "v.golden FROM decisions AS d JOIN videos AS v ON v.n = d.video WHERE d.undone_s IS NULL AND d.n > ? "
            f"ORDER BY d.n LIMIT {_ROWS}"
        )
        after = 0
        while found := self._database.read().execute(query, (after,)).fetchall():
            for row in found:
                line: dict[str, Any] = {
                    "video": row["id"],
                    "sha256": row["sha256"],
                    "source_class": row["source_class"],
                    "outcome": row["outcome"],
                    "label": row["label"],
                    "probability": row["probability"],
                    "track": row["track"],
                    "decision": row["decision"],
                    "reason": row["reason"],
                    "by": self.pseudonym(row["key_id"]),
                    "blind": bool(row["blind"]),
                    "made_at_s": row["made_s"],
                    "round": row["round"],
                    "answer": row["answer"],
                    "golden": row["golden"] is not None,
                }
                if comments:
                    line["comment"] = row["comment"]
                yield json.dumps(line, ensure_ascii=False) + "\n"
            after = found[-1]["n"]

    def _counts(self) -> list[tuple[str, dict[str, int]]]:
        """For each key that decided or skipped: decisions, skips, clips with a known answer and right ones of them."""
        found: dict[str, dict[str, int]] = defaultdict(
            lambda: dict.fromkeys(("decisions", "skips", "golden", "right"), 0)
        )
        rows = self._database.read()
        for row in rows.execute(
            "SELECT d.key_id, count(*) AS decisions, sum(v.golden IS NOT NULL AND d.blind) AS golden, "
            "sum(v.golden IS d.decision AND d.blind) AS right_ FROM decisions AS d JOIN videos AS v ON v.n = d.video "
            "WHERE d.track IS NULL AND d.undone_s IS NULL GROUP BY d.key_id"
        ):
            found[row["key_id"]] |= {"decisions": row["decisions"], "golden": row["golden"], "right": row["right_"]}
        for row in rows.execute("SELECT key_id, count(*) AS skips FROM skips GROUP BY key_id"):
            found[row["key_id"]]["skips"] = row["skips"]
        return sorted(found.items())

    def _reviewer(
        self, key_id: str, counts: dict[str, int], of: dict[str, dict[SourceClass, list[tuple[Choice, Choice]]]]
    ) -> ReviewerQuality:
        mine = of.get(key_id, {})
        return ReviewerQuality(
            key_id,
            counts["decisions"],
            counts["skips"],
            agreement([pair for pairs in mine.values() for pair in pairs]),
            {class_: agreement(pairs) for class_, pairs in sorted(mine.items())},
            share(counts["right"], counts["golden"]),
        )

    def _audits(self) -> dict[Label, Share]:
        query = "SELECT label, answer FROM videos WHERE audited AND round = ? AND golden IS NULL AND label IS NOT NULL"
        found: dict[Label, list[bool]] = defaultdict(list)
        for row in self._database.read().execute(query, (Round.CLOSED,)):
            label = Label(row["label"])
            found[label].append(contradicts(Choice(row["answer"]), label))
        return {label: share(sum(wrong), len(wrong)) for label, wrong in sorted(found.items())}
