"""The PDF of a pack: its words are the report's, and its pages hold whatever names and people there are."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("pypdf")
pytest.importorskip("reportlab")

import pypdf

from models.error_rates import packaged_rates
from models.zoo import find_entry
from pipeline.contracts import Label, Outcome
from pipeline.results import wording
from pipeline.results.rates_text import error_rates
from tests.pipeline.records import record
from tests.pipeline.results.test_report import THRESHOLDS, ClipReport, scored
from web.evidence.container import EvidenceError
from web.evidence.pdf import render_pdf
from web.evidence.pdf_contents import PdfContents
from web.evidence.pdf_text import Texts

WEIGHTS = find_entry("unmask-small").sha256


def contents(report: ClipReport, **changes: Any) -> PdfContents:
    verdict = report.verdict
    provenance = verdict.provenance.model_copy(update={"weights_sha256": [WEIGHTS]})
    verdict = verdict.model_copy(update={"provenance": provenance})
    table = packaged_rates(WEIGHTS)
    assert table is not None
    facts = {
        "video": "0123456789abcdef01234567",
        "name": verdict.source,
        "uri": None,
        "sha256": "ab" * 32,
        "size_bytes": 123_456,
        "handed_in_at": "2026-11-29T02:51:28+00:00",
        "judged_at": "2026-11-29T02:52:28+00:00",
        "headline": wording.finding_of(verdict).headline,
        "review": {"answer": None},
    }
    made = PdfContents(
        report=replace(report, verdict=verdict),
        facts=facts,
        rates=error_rates(verdict, [table]),
        decisions=[],
        appeals=[],
        entries=[],
        files={"record.json": {"sha256": "cd" * 32, "bytes": 1}},
        contents_sha256="ef" * 32,
        software="unmask 0.1.0",
    )
    return replace(made, **changes)


def pages_of(pdf: bytes) -> list[str]:
    return [" ".join(page.extract_text().split()) for page in pypdf.PdfReader(io.BytesIO(pdf)).pages]


def test_eight_people_with_long_names_fit_on_pages() -> None:
    report = scored("很长 " + "very_long_name_" * 16 + ".mp4", 0.97, Label.FAKE, tracks=8, thresholds=THRESHOLDS)
    decision = {
        "n": 1, "track": None, "decision": "fake", "by": "reviewer 1", "blind": True, "made_at": "2026-11-29",
        "undone_at": None, "reason": "4711", "comment": "long " * 2000,
    }  # fmt: skip
    data = {"n": 1, "at": "2026-11-29", "kind": "judged", "by": None, "data": {"hash": "ab" * 8000}}
    pages = pages_of(render_pdf(contents(report, decisions=[decision], entries=[data] * 3)))
    text = " ".join(pages)
    for track in range(8):
        assert text.count(f"Track {track} ") >= 1
    assert text.count("long ") >= 2000
    assert text.replace(" ", "").count("ab" * 100) >= 3 * 70
    assert all(f"Page {n} of {len(pages)}" in page and "ef" * 32 in page for n, page in enumerate(pages, 1))


def test_the_same_contents_give_the_same_bytes() -> None:
    made = contents(scored("clip.mp4", 0.5, thresholds=THRESHOLDS))
    first = render_pdf(made)
    assert first == render_pdf(made)
    other = render_pdf(replace(made, contents_sha256="00" * 32))
    assert hashlib.sha256(first).digest() != hashlib.sha256(other).digest()


def test_the_words_are_those_of_the_report() -> None:
    report = scored("clip.mp4", 0.97, Label.FAKE, thresholds=THRESHOLDS)
    ratio = 44.123
    report = replace(report, verdict=report.verdict.model_copy(update={"likelihood_ratio": ratio}))
    made = contents(report)
    text = " ".join(pages_of(render_pdf(made)))
    finding = wording.finding_of(report.verdict)
    for words in (
        finding.headline,
        finding.meaning,
        wording.evidence_text(ratio),
        wording.thresholds_text(THRESHOLDS),
        "It looks at faces only: not at voices, captions, scenes",
        *made.rates.sentences,
    ):
        assert words in text, words
    for row in made.rates.rows:
        assert all(cell in text for cell in row), row


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Łódź Καλημέρα Привет.mp4", "Łódź Καλημέρα Привет.mp4"),
        ("会议.mp4", "\\u4f1a\\u8bae.mp4"),
        ("اجتماع.mp4", "\\u0627\\u062c\\u062a\\u0645\\u0627\\u0639.mp4"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("<b>&amp;</b>.mp4", "<b>&amp;</b>.mp4"),
    ],
)
def test_names_are_shown_or_escaped(name: str, shown: str) -> None:
    first = pages_of(render_pdf(contents(scored(name, 0.5))))[0]
    assert f"What Unmask found in {shown}" in first
    assert ("Characters of names that this page cannot show" in first) == ("\\u" in shown)


def test_what_was_not_judged_has_no_number(tmp_path: Path) -> None:
    made = contents(ClipReport(record(outcome=Outcome.NO_FACE)))
    text = " ".join(pages_of(render_pdf(made)))
    assert "Not judged: no face found" in text
    assert "Probability of fake" not in text
    assert "no slice of these crops is like this clip" in text
    (tmp_path / "text.ttf").write_text("no font")
    with pytest.raises(EvidenceError, match="not a TrueType font"):
        render_pdf(made, [tmp_path / "text.ttf"])
    with pytest.raises(FileNotFoundError):
        render_pdf(made, [tmp_path / "absent.ttf"])


def test_timelines_and_faces_are_drawn() -> None:
    reader = pypdf.PdfReader(io.BytesIO(render_pdf(contents(scored("clip.mp4", 0.9, thresholds=THRESHOLDS)))))
    drawn = [page for page in reader.pages if len(page.images)]
    (page,) = drawn
    assert all(min(Image.open(io.BytesIO(image.data)).size) > 100 for image in page.images)
    operators = page.get_contents().get_data().split()
    # The line has 19 parts and the 20 dots have four curves each: graphics, not a picture.
    assert operators.count(b"c") >= 80
    assert operators.count(b"l") >= 19


def test_a_named_font_shows_what_the_own_one_lacks(tmp_path: Path) -> None:
    font_builder = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")
    pen = pens.TTGlyphPen(None)
    for number, place in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if number else pen.moveTo)(place)
    pen.closePath()
    builder = font_builder.FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({0x4F1A: "square"})
    builder.setupGlyf({".notdef": pens.TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupOS2()
    builder.setupPost()
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular", "psName": "Square-Regular"})
    builder.save(tmp_path / "square.ttf")
    made = contents(scored("a 会议 b.mp4", 0.5))
    assert "a 会\\u8bae b.mp4" in pages_of(render_pdf(made, [tmp_path / "square.ttf"]))[0]


@settings(max_examples=20, deadline=None)
@given(name=st.text(st.characters(), min_size=1, max_size=300))
def test_any_name_is_a_paragraph(name: str) -> None:
    texts = Texts()
    for style in ("name", "code", "body"):
        paragraph = texts.paragraph(name, style)
        width, height = paragraph.wrap(200, 10_000)
        assert width <= 200
        assert height > 0
        assert all(part.wrap(200, 40)[1] <= 40 for part in paragraph.split(200, 40))
