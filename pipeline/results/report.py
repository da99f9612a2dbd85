"""The HTML report: one self-contained page for a clip or a run. It loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from markupsafe import Markup

from models.atomic import atomic_write
from pipeline.clip_report import ClipReport
from pipeline.results import wording
from pipeline.results.clip_view import detailed, environment, summarised
from pipeline.results.rates_text import HEAD, ErrorRates
from pipeline.results.report_clips import MAX_DETAILED_CLIPS, RunSummary, interest

# Of clips in the table; more would make the page slow.
MAX_ROWS = 2000


def write_report(path: Path, clips: Sequence[ClipReport], *, title: str | None = None, run: RunSummary) -> None:
    """Write the page atomically; its size is bounded for any number and length of clips.

    Args:
        path: file to write; missing parent directories are made.
        clips: in any order; the page sorts them, the most suspicious first.
        title: of the page; by default the clip's name, or how many clips there are.
        run: what the run did.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(render_report(clips, title=title, run=run).encode("utf-8"))


def render_report(
    clips: Sequence[ClipReport], *, title: str | None = None, run: RunSummary, rates: ErrorRates | None = None
) -> str:
    """The page as text; see `write_report`. `rates`: for clips like the only one, shown after it."""
    ordered = sorted(clips, key=lambda clip: interest(clip.verdict), reverse=True)
    anchors = (f"clip-{n}" if n < MAX_DETAILED_CLIPS else None for n in range(MAX_ROWS))
    rows = [summarised(clip, anchor) for clip, anchor in zip(ordered, anchors, strict=False)]
    details = [
        detailed(clip, row) for clip, row in zip(ordered[:MAX_DETAILED_CLIPS], rows[:MAX_DETAILED_CLIPS], strict=True)
    ]
    kinds = Counter(wording.finding_of(clip.verdict).kind for clip in clips)
    if title is None:
        title = wording.short_name(clips[0].verdict.source) if len(clips) == 1 else f"{len(clips):,} clips"
    css, js = _asset("report.css"), _asset("report.js")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            headline=wording.run_headline([clip.verdict for clip in clips]),
            run=run,
            rows=rows,
            details=details,
            total=len(clips),
            kinds=kinds,
            untrained=sum(clip.verdict.provenance.untrained for clip in clips),
            css=css,
            js=js,
            css_hash=_csp_hash(css),
            js_hash=_csp_hash(js),
            rates=rates,
            rates_head=HEAD,
        )
    )


def _asset(name: str) -> Markup:
    return Markup((resources.files(__package__) / "templates" / name).read_text("utf-8"))


def _csp_hash(text: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")
