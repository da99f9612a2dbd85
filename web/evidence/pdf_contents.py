"""What the PDF of an evidence pack shows: all of it comes from the pack's other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.clip_report import ClipReport
from pipeline.results.rates_text import ErrorRates


@dataclass(frozen=True, slots=True)
class PdfContents:
    """See the module.

    Attributes:
        report: of the video.
        facts: of `facts.json`.
        rates: for clips like this one.
        decisions: lines of `decisions.jsonl`.
        appeals: lines of `appeals.jsonl`.
        entries: of the audit log.
        files: of the pack but the PDF, as the manifest has them.
        contents_sha256: of these, shown on each page.
        software: name and version.
    """

    report: ClipReport
    facts: Mapping[str, Any]
    rates: ErrorRates
    decisions: Sequence[Mapping[str, Any]]
    appeals: Sequence[Mapping[str, Any]]
    entries: Sequence[Mapping[str, Any]]
    files: Mapping[str, Mapping[str, Any]]
    contents_sha256: str
    software: str
