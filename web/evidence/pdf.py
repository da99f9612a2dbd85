"""The PDF of an evidence pack: A4, selectable text, vector graphics; the same contents give the same bytes.

It is made by reportlab, which is an extra (`unmask[pdf]`), and has no links, scripts, forms or attached files.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from reportlab.lib.pagesizes import A4
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import SimpleDocTemplate

from pipeline.visible import visible
from web.evidence.pdf_contents import PdfContents
from web.evidence.pdf_sections import sections
from web.evidence.pdf_text import RULE, SANS, SOFT, Texts

_MARGIN_PT: Final = 18 * mm
# Of reportlab's frames, on each side.
_PADDING_PT: Final = 6
WIDTH_PT: Final = A4[0] - 2 * _MARGIN_PT


def render_pdf(contents: PdfContents, fonts: Sequence[Path] = ()) -> bytes:
    """The file.

    Args:
        contents: what it shows.
        fonts: TrueType files for characters of names that its own font lacks.

    Raises:
        EvidenceError: a font is not one.
        OSError: a font cannot be read.
    """
    texts = Texts(fonts)
    target = io.BytesIO()
    document = SimpleDocTemplate(
        target,
        pagesize=A4,
        leftMargin=_MARGIN_PT - _PADDING_PT,
        rightMargin=_MARGIN_PT - _PADDING_PT,
        topMargin=20 * mm,
        bottomMargin=20 * mm,
        title=f"Evidence of video {contents.facts['video']}",
        author=contents.software,
        subject=contents.facts["headline"],
        creator=contents.software,
        lang="en",
        # Neither the date nor random ids: the same contents give the same bytes.
        invariant=1,
        allowSplitting=1,
    )

    def pages(*arguments: Any, **options: Any) -> Canvas:
        return _NumberedPages(*arguments, contents=contents, **options)

    document.build(sections(contents, texts, WIDTH_PT), canvasmaker=pages)
    return target.getvalue()


class _NumberedPages(Canvas):  # type: ignore[misc]
    """Draws heads and feet when the number of pages is known."""

    def __init__(self, *arguments: Any, contents: PdfContents, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._contents = contents
        self._kept: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802
        """Keep a page."""
        self._kept.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        """Draw all pages."""
        for number, page in enumerate(self._kept, 1):
            self.__dict__.update(page)
            self._frame(number, len(self._kept))
            super().showPage()
        super().save()

    def _frame(self, number: int, count: int) -> None:
        width, height = A4
        left, right = _MARGIN_PT, width - _MARGIN_PT
        self.saveState()
        self.setFont(SANS, 7)
        self.setFillColor(SOFT)
        self.setStrokeColor(RULE)
        self.setLineWidth(0.5)
        self.drawString(left, height - 12 * mm, f"Unmask evidence · video {visible(self._contents.facts['video'])}")
        self.drawRightString(right, height - 12 * mm, self._contents.software)
        self.line(left, height - 14 * mm, right, height - 14 * mm)
        self.line(left, 14 * mm, right, 14 * mm)
        self.drawString(left, 10 * mm, f"Contents sha256 {self._contents.contents_sha256}")
        self.drawRightString(right, 10 * mm, f"Page {number} of {count}")
        self.restoreState()
