"""What an archive's folder says of the whole: which parts are complete, what failed, and the counts."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pipeline.archive.journal import delete_journals
from pipeline.archive.output import OutFolder, scratch
from pipeline.archive.part import AGAIN
from pipeline.archive.plan import Plan, part_name
from pipeline.archive.table import Marker, read_marker, read_rows, write_marker
from pipeline.contracts import Outcome

SUCCESS: Final = "_SUCCESS"
SUMMARY: Final = "summary.json"
FAILED: Final = "failed.csv"


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all parts.

    Attributes:
        outcomes: files by outcome.
        labels: scored files by label.
    """

    outcomes: Mapping[str, int]
    labels: Mapping[str, int]

    @classmethod
    def of(cls, markers: Iterable[Marker]) -> Totals:
        """The sums of complete parts."""
        outcomes: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        for marker in markers:
            outcomes.update(marker.outcomes)
            labels.update(marker.labels)
        return cls(dict(sorted(outcomes.items())), dict(sorted(labels.items())))

    @property
    def files(self) -> int:
        """In complete parts."""
        return sum(self.outcomes.values())

    @property
    def not_scored(self) -> int:
        """Files with another outcome than `scored`."""
        return self.files - self.outcomes.get(Outcome.SCORED, 0)


def complete_parts(out: OutFolder, plan: Plan, which: Iterable[int] | None = None) -> dict[int, Marker]:
    """The parts whose marker and Parquet file fit: by size, and in a folder of this machine by sha256.

    Args:
        out: the output.
        plan: of the archive.
        which: only these are looked at; None: all.

    Raises:
        NotReadError: the output cannot be read.
    """
    names = out.names()
    found: dict[int, Marker] = {}
    for number in range(len(plan.parts)) if which is None else which:
        name = part_name(number, "parquet")
        if name not in names or part_name(number, "done") not in names:
            continue
        marker = read_marker(out, number)
        if (
            marker is not None
            and (marker.part, marker.rows, marker.size_bytes) == (number, plan.parts[number].files, names[name])
            and (out.path is None or out.sha256(name) == marker.sha256)
        ):
            found[number] = marker
    return found


def begin_again(out: OutFolder, plan: Plan, markers: Iterable[Marker]) -> int:
    """Let the next run judge what may pass by now: of these parts, files that were unavailable, shed or model_error.

    Returns:
        how many files.

    Raises:
        NotWrittenError: the output cannot be written.
    """
    files = 0
    for marker in markers:
        if marker.retryable:
            out.delete(SUCCESS)
            # A worker that was killed after its marker has left its journal, with the outcomes that are tried again.
            delete_journals(out.journals(plan.id), marker.part)
            write_marker(out, marker, AGAIN)
            out.delete(part_name(marker.part, "done"))
            files += marker.retryable
    return files


def write_results(out: OutFolder, plan: Plan, markers: Mapping[int, Marker]) -> Totals:
    """Write `failed.csv`, `summary.json` and, last, `_SUCCESS`.

    Args:
        out: the output.
        plan: of the archive.
        markers: of all its parts.

    Raises:
        NotWrittenError: the output cannot be written.
        NotReadError: a part cannot be read.
    """
    totals = Totals.of(markers.values())
    with scratch() as file:
        text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["id", "uri", "outcome", "error"])
        for number, marker in sorted(markers.items()):
            if marker.outcomes.get(Outcome.SCORED, 0) == marker.rows:
                continue
            with out.opened(part_name(number, "parquet")) as part:
                for row in read_rows(part, ["id", "uri", "outcome", "error"]):
                    if row["outcome"] != Outcome.SCORED:
                        writer.writerow([row["id"], row["uri"], row["outcome"], row["error"]])
        text.detach()
        out.write(FAILED, file)
    summary = {
        "schema": 1,
        "files": totals.files,
        "outcomes": totals.outcomes,
        "labels": totals.labels,
        "not_scored": totals.not_scored,
        "parts": len(markers),
        "judged": None if plan.judged is None else plan.judged.model_dump(mode="json"),
        "software": plan.software,
    }
    out.write(SUMMARY, f"{json.dumps(summary, indent=1)}\n".encode())
    with suppress(OSError):  # a folder that does not exist, or has a journal of a try that was lost
        out.journals(plan.id).rmdir()
    out.write(SUCCESS, b"")
    return totals
