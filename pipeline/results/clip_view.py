"""A clip as pages show it: its texts, its people's timelines and pictures, and the templates that draw them."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import dataclass, replace
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pipeline.clip_report import AppliedThresholds, ClipReport
from pipeline.contracts import Person, Segment, Verdict
from pipeline.credentials import Credentials
from pipeline.faces.flaws import flaws_text
from pipeline.portraits import Portrait
from pipeline.results import wording
from pipeline.results.credentials_text import actions_text, credentials_text
from pipeline.results.timeline import Timeline, sampling_step_s, timeline_of
from pipeline.verdict.aggregate import support_of
from pipeline.verdict.coverage import describe
from pipeline.visible import visible

# Limits that keep a report of many clips below about 15 MB: most of it pictures, at up to 12 kB each.
MAX_CHARTS_PER_CLIP = 6
MAX_PORTRAITS_PER_KIND = 3
MAX_PEOPLE_LISTED = 40


@dataclass(frozen=True, slots=True)
class PersonView:
    """A person of a clip; without a timeline where no face of theirs is in the record."""

    person: Person
    supported: bool
    timeline: Timeline | None
    suspicious: tuple[Portrait, ...]
    clearest: tuple[Portrait, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class ClipView:
    """A clip. Its people are there in `detailed` views only."""

    verdict: Verdict
    finding: wording.Finding
    thresholds: AppliedThresholds | None
    people: tuple[PersonView, ...] = ()
    others: tuple[Person, ...] = ()
    others_left_out: int = 0
    anchor: str | None = None
    credentials: Credentials | None = None

    @property
    def is_still(self) -> bool:
        """Whether it is a picture: it has no length, and nothing in it has a time."""
        return self.verdict.duration_s is None and self.verdict.frames_sampled == 1

    @property
    def rationale(self) -> str:
        """See `wording.rationale`."""
        return "" if self.verdict.provenance.untrained else wording.rationale(self.verdict, self.thresholds)


def summarised(clip: ClipReport, anchor: str | None = None) -> ClipView:
    """The clip in a row of a table.

    Args:
        clip: it.
        anchor: name of its details on the same page.
    """
    return ClipView(clip.verdict, wording.finding_of(clip.verdict), clip.thresholds, anchor=anchor)


def detailed(clip: ClipReport, row: ClipView | None = None, *, charts: int = MAX_CHARTS_PER_CLIP) -> ClipView:
    """The clip with its people, those who decide first.

    Args:
        clip: it.
        row: what `summarised` gave for it.
        charts: people with a timeline at most; others are listed.
    """
    verdict = clip.verdict
    needed = support_of(verdict)
    ranked = sorted(verdict.people, key=lambda person: (person.frames < needed, -person.probability))
    shown, others = ranked[:charts], ranked[charts:]
    times_s = np.array([face.t_s for face in verdict.frames])
    step_s = sampling_step_s(times_s, verdict.judged_s, verdict.frames_sampled)
    span_s = max([verdict.duration_s or 0.0, *times_s.tolist()])
    return replace(
        row or summarised(clip),
        people=tuple(_person(person, clip, person.frames >= needed, span_s, step_s) for person in shown),
        others=tuple(others[:MAX_PEOPLE_LISTED]),
        others_left_out=max(0, len(others) - MAX_PEOPLE_LISTED),
        credentials=clip.credentials,
    )


def _person(person: Person, clip: ClipReport, supported: bool, span_s: float, step_s: float) -> PersonView:
    faces = [face for face in clip.verdict.frames if face.track == person.track]
    suspicious = [p for p in clip.suspicious if p.track == person.track][:MAX_PORTRAITS_PER_KIND]
    clearest = [p for p in clip.clearest if p.track == person.track and p not in suspicious]
    return PersonView(
        person,
        supported,
        timeline_of(faces, span_s=span_s, step_s=step_s) if faces else None,
        tuple(suspicious),
        tuple(clearest[:MAX_PORTRAITS_PER_KIND]),
        tuple(segment for segment in clip.verdict.segments if segment.track == person.track),
    )


def guide_texts() -> list[tuple[str, str]]:
    """Headings and paragraphs of "How to read this", for outputs that are not HTML."""
    text = environment().get_template("guide.html.j2").render()
    found = re.findall(r"<h3>(.*?)</h3>\s*<p>(.*?)</p>", text, re.DOTALL)
    return [(html.unescape(head), html.unescape(body)) for head, body in found]


def environment(*loaders: jinja2.BaseLoader) -> jinja2.Environment:
    """Templates with the filters of clips: those of these loaders, then those of the report.

    Every text is shown as `visible` shows it.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*loaders, jinja2.PackageLoader(__package__)]),
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
        "strength": wording.strength_text,
        "bound": wording.bound_text,
        "limits": wording.limits_text,
        "thresholds": wording.thresholds_text,
        "duration": wording.duration_text,
        "moment": wording.moment_text,
        "tick": wording.tick_text,
        "utc": wording.utc_text,
        "short_name": wording.short_name,
        "flaws": flaws_text,
        "missing": describe,
        "settled": wording.settled_text,
        "part": wording.part_text,
        "segments": wording.segments_text,
        "credentials": credentials_text,
        "actions": actions_text,
        "data_uri": lambda jpeg: Markup(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"),
    }
    return environment


def _printable(value: Any) -> Any:
    # Every expression of the templates passes through here: markup is trusted, any other text may be hostile.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
