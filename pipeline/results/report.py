"""The HTML report: one self-contained page for a clip or a run. It loads nothing and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from models.atomic import atomic_write
from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Person, Segment, Verdict
from pipeline.faces.flaws import flaws_text
from pipeline.portraits import Portrait
from pipeline.results import wording
from pipeline.results.report_clips import MAX_DETAILED_CLIPS, RunSummary, interest
from pipeline.results.timeline import Timeline, sampling_step_s, timeline_of
from pipeline.verdict.aggregate import support_of
from pipeline.verdict.coverage import describe
from pipeline.visible import visible

# Limits that keep the page below about 15 MB, whatever the run: most of it pictures, at up to 12 kB each.
MAX_CHARTS_PER_CLIP = 6
MAX_PORTRAITS_PER_KIND = 3
MAX_ROWS = 2000
MAX_PEOPLE_LISTED = 40


@dataclass(frozen=True, slots=True)
class _PersonView:
    person: Person
    supported: bool
    timeline: Timeline | None
    suspicious: tuple[Portrait, ...]
    clearest: tuple[Portrait, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class _ClipView:
    verdict: Verdict
    finding: wording.Finding
    thresholds: AppliedThresholds | None
    people: tuple[_PersonView, ...] = ()
    others: tuple[Person, ...] = ()
    others_left_out: int = 0
    anchor: str | None = None


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


def render_report(clips: Sequence[ClipReport], *, title: str | None = None, run: RunSummary) -> str:
    """The page as text; see `write_report`."""
    ordered = sorted(clips, key=lambda clip: interest(clip.verdict), reverse=True)
    rows = [_row(clip, f"clip-{n}" if n < MAX_DETAILED_CLIPS else None) for n, clip in enumerate(ordered[:MAX_ROWS])]
    details = [
        _detail(clip, row) for clip, row in zip(ordered[:MAX_DETAILED_CLIPS], rows[:MAX_DETAILED_CLIPS], strict=True)
    ]
    kinds = Counter(wording.finding_of(clip.verdict).kind for clip in clips)
    if title is None:
        title = wording.short_name(clips[0].verdict.source) if len(clips) == 1 else f"{len(clips):,} clips"
    css, js = _asset("report.css"), _asset("report.js")
    return (
        _environment()
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
        )
    )


def _row(clip: ClipReport, anchor: str | None) -> _ClipView:
    return _ClipView(clip.verdict, wording.finding_of(clip.verdict), clip.thresholds, anchor=anchor)


def _detail(clip: ClipReport, row: _ClipView) -> _ClipView:
    verdict = clip.verdict
    needed = support_of(verdict)
    ranked = sorted(verdict.people, key=lambda person: (person.frames < needed, -person.probability))
    shown, others = ranked[:MAX_CHARTS_PER_CLIP], ranked[MAX_CHARTS_PER_CLIP:]
    times_s = np.array([face.t_s for face in verdict.frames])
    step_s = sampling_step_s(times_s, verdict.duration_s, verdict.frames_sampled)
    span_s = max([verdict.duration_s or 0.0, *times_s.tolist()])
    return replace(
        row,
        people=tuple(_person(person, clip, person.frames >= needed, span_s, step_s) for person in shown),
        others=tuple(others[:MAX_PEOPLE_LISTED]),
        others_left_out=max(0, len(others) - MAX_PEOPLE_LISTED),
    )


def _person(person: Person, clip: ClipReport, supported: bool, span_s: float, step_s: float) -> _PersonView:
    faces = [face for face in clip.verdict.frames if face.track == person.track]
    suspicious = [p for p in clip.suspicious if p.track == person.track][:MAX_PORTRAITS_PER_KIND]
    clearest = [p for p in clip.clearest if p.track == person.track and p not in suspicious]
    return _PersonView(
        person,
        supported,
        timeline_of(faces, span_s=span_s, step_s=step_s) if faces else None,
        tuple(suspicious),
        tuple(clearest[:MAX_PORTRAITS_PER_KIND]),
        tuple(segment for segment in clip.verdict.segments if segment.track == person.track),
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    environment.filters |= {
        "probability": wording.probability_text,
        "evidence": wording.evidence_text,
        "duration": wording.duration_text,
        "moment": wording.moment_text,
        "tick": wording.tick_text,
        "utc": wording.utc_text,
        "short_name": wording.short_name,
        "flaws": flaws_text,
        "missing": describe,
        "settled": wording.settled_text,
        "segments": wording.segments_text,
        "data_uri": lambda jpeg: Markup(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"),
    }
    return environment


def _printable(value: Any) -> Any:
    # Every expression of the templates passes through here: markup is trusted, any other text may be hostile.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> Markup:
    return Markup((resources.files(__package__) / "templates" / name).read_text("utf-8"))


def _csp_hash(text: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(f"'sha256-{digest}'")
