"""The sections of the PDF, in their order; the words are those of the HTML report."""

from __future__ import annotations

import io
import json
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Final

from reportlab.lib.units import mm
from reportlab.platypus import CondPageBreak, Flowable, Image, KeepTogether, LongTable, Paragraph, Spacer, TableStyle

from pipeline.contracts import ScoredFace
from pipeline.faces.flaws import flaws_text
from pipeline.portraits import Portrait
from pipeline.results import wording
from pipeline.results.clip_view import ClipView, PersonView, detailed, guide_texts
from pipeline.results.credentials_text import actions_text, credentials_text
from pipeline.results.rates_text import HEAD
from pipeline.verdict.coverage import describe
from web.evidence.pdf_contents import PdfContents
from web.evidence.pdf_drawings import scale_drawing, timeline_drawing
from web.evidence.pdf_tables import text_table, values_table
from web.evidence.pdf_text import INK, KINDS, STYLES, Texts

# People with a timeline; more are listed.
MAX_PEOPLE: Final = 24
# Rows that a reader can still use; all are in the pack's files.
MAX_FACES, MAX_ENTRIES = 40, 100
_PORTRAIT_PT: Final = 23 * mm


def sections(contents: PdfContents, texts: Texts, width_pt: float) -> list[Flowable]:
    """All of them; a page is `width_pt` wide, in points."""
    clip = detailed(contents.report, charts=MAX_PEOPLE)
    made = _Sections(contents, clip, texts, width_pt)
    found = [
        *made.verdict(), *made.judged(), *made.people(), *made.faces(), *made.rates(), *made.provenance(),
        *made.credentials(), *made.guide(), *made.review(), *made.entries(), *made.files(),
    ]  # fmt: skip
    if texts.has_escapes:
        note = "Characters of names that this page cannot show are written as \\u and their number in hex, as in JSON."
        found.insert(0, texts.paragraph(note, "fine"))
    return found


class _Sections:
    def __init__(self, contents: PdfContents, clip: ClipView, texts: Texts, width_pt: float) -> None:
        self._contents, self._clip, self._texts, self._width = contents, clip, texts, width_pt

    def verdict(self) -> Iterator[Flowable]:
        clip, verdict, say = self._clip, self._clip.verdict, self._texts.paragraph
        finding = clip.finding
        yield say(f"What Unmask found in {self._contents.facts['name']}", "name")
        colour = KINDS.get(finding.kind, INK).hexval()[2:]
        headline = self._texts.markup(finding.headline)
        yield Paragraph(f'<font color="#{colour}">{headline}</font>', STYLES["headline"])
        yield say(finding.meaning)
        if clip.rationale:
            yield say(clip.rationale)
        if verdict.error is not None:
            yield self._texts.labelled(f"{verdict.outcome.value}:", verdict.error)
        if verdict.limits and not verdict.provenance.untrained:
            yield self._texts.labelled("Limits:", wording.limits_text(verdict.limits))
        if verdict.probability is not None:
            yield KeepTogether(list(self._scale(verdict.probability)))
        if verdict.adapted and verdict.adapted.early:
            settled = wording.settled_text(verdict.adapted, verdict.frames_sampled)
            yield self._texts.labelled("few frames:", f"{settled}.")
        if verdict.part:
            yield self._texts.labelled("part of the video:", f"only {wording.part_text(verdict.part)} was judged.")
        if verdict.coverage and not verdict.coverage.is_whole and verdict.probability is not None:
            yield self._texts.labelled("partly read:", f"{describe(verdict.coverage)}; the verdict is about this part.")
        if verdict.segments and not verdict.provenance.untrained:
            found = wording.segments_text(verdict.segments)
            yield self._texts.labelled("forged in part:", f"it looks forged {found}.")
        if verdict.not_judged and verdict.outcome.value != "low_quality":
            flaws = flaws_text(verdict.not_judged)
            yield say(f"Faces that were not judged, counted once a frame: {flaws}.", "fine")

    def _scale(self, probability: float) -> Iterator[Flowable]:
        clip, verdict, say = self._clip, self._clip.verdict, self._texts.paragraph
        yield say("Probability of fake", "h3")
        yield say(wording.probability_text(probability), "big")
        yield scale_drawing(probability, clip.thresholds, width_pt=self._width)
        yield Spacer(0, 5)
        if verdict.provenance.untrained:
            yield say("Noise: the network is untrained.")
            return
        if verdict.suspicion is not None and verdict.suspicion > probability:
            most = wording.probability_text(verdict.suspicion)
            yield say(f"Over whole people; short stretches reach {most}.")
        elif verdict.likelihood_ratio is not None:
            text = wording.evidence_text(verdict.likelihood_ratio)
            bound = "" if verdict.evidence is None else wording.bound_text(verdict.evidence)
            strength = "" if verdict.evidence is None else f"{wording.strength_text(verdict.evidence)}."
            yield self._texts.labelled(strength, f"{text} {bound}".strip())
        if clip.thresholds is None:
            yield say("The thresholds between real, inconclusive and fake are not known to this page.", "fine")
        else:
            yield say(wording.thresholds_text(clip.thresholds), "fine")

    def judged(self) -> Iterator[Flowable]:
        facts, verdict = self._contents.facts, self._clip.verdict
        length = "unknown" if verdict.duration_s is None else wording.duration_text(verdict.duration_s)
        rows = [
            ("File name", facts["name"]),
            ("URI", facts["uri"]),
            ("sha256", facts["sha256"] or "unknown"),
            ("Size", None if facts["size_bytes"] is None else f"{facts['size_bytes']:,} bytes"),
            ("Length", length),
            ("Frames", f"{verdict.frames_sampled:,} sampled, {verdict.frames_scored:,} scored"),
            ("People", f"{len(verdict.people):,}"),
            ("Outcome", verdict.outcome.value),
            ("Label", None if verdict.label is None else verdict.label.value),
            ("Probability", None if verdict.probability is None else f"{verdict.probability!r}"),
            ("Likelihood ratio", None if verdict.likelihood_ratio is None else f"{verdict.likelihood_ratio!r}"),
            ("Handed in", facts["handed_in_at"]),
            ("Judged", facts["judged_at"]),
            ("Took", wording.duration_text(verdict.elapsed_s)),
        ]
        yield from self._section("What was judged", [values_table(self._texts, rows, self._width)])

    def people(self) -> Iterator[Flowable]:
        clip = self._clip
        if not clip.people:
            return
        legend = (
            "Timelines: probability of fake over time. Larger dots: better crops. Triangles: most suspicious, "
            "pictured. Hatched: no scored face. Dashed lines: the thresholds."
        )
        head = [self._texts.paragraph("People", "h2")]
        if not clip.is_still:
            head.append(self._texts.paragraph(legend, "fine"))
        for view in clip.people:
            yield KeepTogether([*head, *self._person(view)])
            head = []
        if clip.others:
            listed = ", ".join(
                f"track {each.track} {wording.probability_text(each.probability)} ({each.frames:,})"
                for each in clip.others
            )
            more = f" and {clip.others_left_out:,} not listed" if clip.others_left_out else ""
            yield self._texts.paragraph(
                f"{len(clip.others) + clip.others_left_out:,} more: {listed}{more}. In brackets: scored frames.", "fine"
            )

    def _person(self, view: PersonView) -> Iterator[Flowable]:
        person, say = view.person, self._texts.paragraph
        yield say(f"Track {person.track}", "h3")
        seen = f"{person.frames:,} {'frame' if person.frames == 1 else 'frames'}"
        when = f"{wording.moment_text(person.first_s)} to {wording.moment_text(person.last_s)}"
        few = "" if view.supported else " · seen in too few frames to count"
        yield self._texts.labelled(wording.probability_text(person.probability), f"over {seen}, {when}{few}")
        if person.likelihood_ratio is not None and not self._clip.verdict.provenance.untrained:
            yield say(wording.evidence_text(person.likelihood_ratio), "fine")
        if view.timeline is not None and not self._clip.is_still:
            yield timeline_drawing(view, self._clip.thresholds, width_pt=self._width)
            yield Spacer(0, 3)
        shots = [("Most suspicious", shot) for shot in view.suspicious] + [("Clearest", shot) for shot in view.clearest]
        if shots:
            cells = [list(self._portrait(title, shot)) for title, shot in shots]
            column = self._width / 6
            table = LongTable([cells], colWidths=[column] * len(cells), hAlign="LEFT")
            table.setStyle(TableStyle([("LEFTPADDING", (0, 0), (-1, -1), 0), ("VALIGN", (0, 0), (-1, -1), "TOP")]))
            yield table

    def _portrait(self, title: str, shot: Portrait) -> Iterator[Flowable]:
        yield self._texts.paragraph(title, "caption")
        yield Image(io.BytesIO(shot.jpeg), _PORTRAIT_PT, _PORTRAIT_PT, kind="proportional", hAlign="LEFT")
        score = wording.probability_text(shot.probability)
        yield Spacer(0, 2)
        yield self._texts.paragraph(f"{score} at {wording.moment_text(shot.t_s)}", "caption")
        yield self._texts.paragraph(f"quality {shot.quality:.2f}", "caption")

    def faces(self) -> Iterator[Flowable]:
        faces = self._clip.verdict.frames
        if not faces:
            return
        by_track: dict[int, list[ScoredFace]] = {}
        for face in faces:
            by_track.setdefault(face.track, []).append(face)
        text = wording.probability_text
        rows = []
        for track, found in sorted(by_track.items()):
            chances = [face.probability for face in found]
            rows.append(
                (
                    f"{track}",
                    f"{len(found):,}",
                    text(min(chances)),
                    text(statistics.median(chances)),
                    text(max(chances)),
                    f"{statistics.fmean(face.quality for face in found):.2f}",
                    f"{statistics.median(face.box[2] - face.box[0] for face in found):.0f} px",
                )
            )
        heads = ("track", "faces", "lowest", "median", "highest", "mean quality", "median width")
        yield from self._section("Scored faces", [text_table(self._texts, self._width, heads, rows, [1] * 7)])
        most = sorted(faces, key=lambda face: (-face.probability, face.t_s, face.track))[:MAX_FACES]
        places = [
            (
                wording.moment_text(face.t_s),
                f"{face.index:,}",
                f"{face.track}",
                text(face.probability),
                f"{face.quality:.2f}",
                ", ".join(f"{value:.0f}" for value in face.box),
            )
            for face in most
        ]
        of = f"{len(most):,} of {len(faces):,}" if len(most) < len(faces) else f"{len(most):,}"
        yield Spacer(0, 8)
        yield self._texts.paragraph(f"Most suspicious first: {of}. record.json has all.", "fine")
        yield text_table(
            self._texts,
            self._width,
            ("time", "frame", "track", "probability", "quality", "box, px"),
            places,
            [1, 1, 1, 1, 1, 2],
        )

    def rates(self) -> Iterator[Flowable]:
        rates, say = self._contents.rates, self._texts.paragraph
        yield from self._section("Error rates for clips like this one", [say(each) for each in rates.sentences])
        if rates.rows:
            yield Spacer(0, 4)
            yield text_table(self._texts, self._width, HEAD, rates.rows, [1.3, 1.5, 1.5, 1.5, 1.5])

    def provenance(self) -> Iterator[Flowable]:
        verdict, found = self._clip.verdict, self._clip.verdict.provenance
        rows = [
            ("Source", verdict.source),
            ("Source sha256", found.source_sha256 or "unknown"),
            ("Clip id", verdict.id),
            ("Model", f"{found.model}{' (untrained)' if found.untrained else ''}"),
            ("Network", found.network or "unknown"),
            ("Weights sha256", " ".join(found.weights_sha256) or "none"),
            ("Input spec", found.input_spec),
            ("Detector", found.detector),
            ("Sampling", found.sampling),
            ("Decoder", found.decoder),
            ("Software", found.software),
        ]
        if self._clip.thresholds is not None:
            thresholds = self._clip.thresholds
            rows.append(("Thresholds", f"real below {thresholds.real!r}, fake from {thresholds.fake!r}"))
        lead = self._texts.paragraph("What it takes to compute these scores again.", "fine")
        yield from self._section("Provenance", [lead, values_table(self._texts, rows, self._width)])

    def credentials(self) -> Iterator[Flowable]:
        found = self._clip.credentials
        if found is None:
            return
        readable = self._clip.verdict.outcome.value != "undecodable"
        lines = [*credentials_text(found, readable), *actions_text(found)]
        yield from self._section("Content Credentials", [self._texts.paragraph(line) for line in lines])

    def guide(self) -> Iterator[Flowable]:
        pairs = [self._texts.labelled(f"{head}.", body, "fine") for head, body in guide_texts()]
        yield from self._section("How to read this", pairs)

    def review(self) -> Iterator[Flowable]:
        contents, say = self._contents, self._texts.paragraph
        answer = contents.facts["review"]["answer"]
        yield from self._section("Review", [say(f"Answer: {'open' if answer is None else answer.replace('_', ' ')}.")])
        if not contents.decisions:
            yield say("Nobody has decided on this video.")
        for each in contents.decisions:
            about = "the clip" if each["track"] is None else f"track {each['track']}"
            blind = ", without seeing the scores" if each["blind"] else ""
            undone = f", undone {each['undone_at']}" if each["undone_at"] else ""
            words = (
                f"{each['made_at']}: {each['decision'].replace('_', ' ')} on {about}, by {each['by']}{blind}{undone}."
            )
            yield self._texts.labelled(f"Decision {each['n']}:", words)
            yield from self._words(each)
        for each in contents.appeals:
            against = str(each["against"]).replace("_", " ")
            yield self._texts.labelled(f"Appeal {each['n']}:", f"{each['made_at']}, against {against}.")
            yield from self._words(each)

    def _words(self, line: Any) -> Iterator[Flowable]:
        for name in ("reason", "comment"):
            if line.get(name):
                yield self._texts.paragraph(f"{name}: {line[name]}", "fine")

    def entries(self) -> Iterator[Flowable]:
        entries = self._contents.entries
        shown = (
            entries if len(entries) <= MAX_ENTRIES else [*entries[: MAX_ENTRIES // 2], *entries[-MAX_ENTRIES // 2 :]]
        )
        rows = [
            (
                f"{each['n']}",
                each["at"],
                each["kind"],
                each["by"] or "the service",
                json.dumps(each["data"], ensure_ascii=False),
            )
            for each in shown
        ]
        of = "" if len(shown) == len(entries) else f" The first and the last ones of {len(entries):,} are shown."
        lead = f"Entries about this video; audit.jsonl has them with their hashes and signatures.{of}"
        yield from self._section("Audit log", [self._texts.paragraph(lead, "fine")])
        yield text_table(
            self._texts,
            self._width,
            ("n", "at", "kind", "by key", "data"),
            rows,
            [0.4, 1.6, 0.8, 1.1, 3.6],
            codes=(1, 3, 4),
        )

    def files(self) -> Iterator[Flowable]:
        rows = [(name, f"{said['bytes']:,}", said["sha256"]) for name, said in self._contents.files.items()]
        lead = (
            "The pack's other files. The hash at the foot of each page is the sha256 of the lines that `sha256sum` "
            "prints for them in this order; manifest.json has it as contents_sha256, and is signed by the service. "
            "`unmask evidence verify` checks all of it."
        )
        yield from self._section("Files of the pack", [self._texts.paragraph(lead, "fine")])
        yield text_table(self._texts, self._width, ("file", "bytes", "sha256"), rows, [1.7, 0.7, 4.1], codes=(0, 2))

    def _section(self, title: str, first: Sequence[Flowable]) -> Iterator[Flowable]:
        """A heading that is never the last line of a page."""
        yield CondPageBreak(35 * mm)
        yield self._texts.paragraph(title, "h2")
        yield from first
