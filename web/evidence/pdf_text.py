"""Text of the PDF: its fonts, its styles, and how characters are shown that no font has."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib.colors import HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.platypus import Paragraph

from pipeline.visible import visible
from web.evidence.container import EvidenceError

SANS: Final = "UnmaskSans"
BOLD: Final = "UnmaskSansBold"
# The report's own colours.
INK, SOFT, RULE, RAISED = (HexColor(each) for each in ("#1b1c1e", "#5c5d60", "#d9d6cc", "#f3f1ea"))
FAKE, FAKE_WASH, REAL, REAL_WASH = (HexColor(each) for each in ("#a8380b", "#f7e0d5", "#1a5a96", "#dde9f4"))
KINDS: Final = {"fake": FAKE, "real": REAL, "inconclusive": HexColor("#755800")}
# Of the package font-source-sans-pro: reportlab's own fonts have few letters beyond Western European ones.
_FILES: Final = {SANS: "SourceSansPro-Regular.ttf", BOLD: "SourceSansPro-Bold.ttf"}
# Scripts that are written from right to left, or whose letters change with their neighbours: reportlab draws them in
# the wrong order or shape, so they are escaped even where a font has them.
_SHAPED: Final = (
    (0x0590, 0x08FF), (0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x17FF), (0x1800, 0x18AF), (0xFB1D, 0xFDFF),
    (0xFE70, 0xFEFC),
)  # fmt: skip
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})


class Texts:
    """Makes paragraphs of any text.

    Attributes:
        has_escapes: whether a character was shown as an escape.

    Args:
        fonts: TrueType files for characters that the own font lacks, the first that has one wins.

    Raises:
        EvidenceError: one is not a TrueType font.
        OSError: one cannot be read.
    """

    def __init__(self, fonts: Sequence[Path] = ()) -> None:
        for name, file in _FILES.items():
            if name not in pdfmetrics.getRegisteredFontNames():
                with resources.as_file(resources.files("font_source_sans_pro") / "files" / file) as path:
                    pdfmetrics.registerFont(TTFont(name, str(path)))
        self.has_escapes = False
        self._own = pdfmetrics.getFont(SANS).face.charToGlyph
        self._more: list[tuple[str, Any]] = []
        for number, path in enumerate(fonts):
            name = f"UnmaskMore{number}"
            try:
                font = TTFont(name, str(path))
            except TTFError as error:
                if not path.is_file():
                    raise FileNotFoundError(2, "no such file", str(path)) from error
                raise EvidenceError(f"{path}: not a TrueType font with outlines of its own: {error}") from error
            pdfmetrics.registerFont(font)
            self._more.append((name, font.face.charToGlyph))

    def markup(self, text: str) -> str:
        """The text as reportlab's markup: control characters as everywhere, and `\\u4e2d` for what no font has."""
        found, run, run_font = [], "", ""

        def end() -> None:
            nonlocal run
            if run:
                found.append(f'<font name="{run_font}">{escape(run)}</font>' if run_font else escape(run))
            run = ""

        plain = visible(text)
        self.has_escapes |= plain != text
        for character in plain:
            shown, font = self._shown(character)
            if font != run_font:
                end()
                run_font = font
            run += shown
        end()
        return "".join(found)

    def _shown(self, character: str) -> tuple[str, str]:
        code = ord(character)
        simple = unicodedata.bidirectional(character) not in _RIGHT_TO_LEFT
        simple = simple and not any(low <= code <= high for low, high in _SHAPED)
        if simple and (code in self._own or character == "\n"):
            return character, ""
        for name, glyphs in self._more if simple else ():
            if code in glyphs:
                return character, name
        self.has_escapes = True
        return (f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"), ""

    def paragraph(self, text: str, style: str = "body") -> Paragraph:
        """A paragraph of plain text, which may be anybody's."""
        return Paragraph(self.markup(text), STYLES[style])

    def labelled(self, label: str, text: str, style: str = "body") -> Paragraph:
        """The same after a label in bold."""
        return Paragraph(f'<font name="{BOLD}">{escape(label)}</font> {self.markup(text)}', STYLES[style])


def _style(name: str, size: float, lead: float, **more: Any) -> ParagraphStyle:
    given = {"fontName": SANS, "textColor": INK, "splitLongWords": 1} | more
    return ParagraphStyle(name, fontSize=size, leading=lead, **given)


STYLES: Final = {
    "kicker": _style("kicker", 9, 12, textColor=SOFT),
    "headline": _style("headline", 22, 27, fontName=BOLD, spaceBefore=2, spaceAfter=4),
    "h2": _style("h2", 13, 17, fontName=BOLD, spaceBefore=14, spaceAfter=5),
    "h3": _style("h3", 10, 14, fontName=BOLD, spaceBefore=8, spaceAfter=2),
    "big": _style("big", 17, 21, fontName=BOLD, spaceAfter=3),
    "body": _style("body", 9, 13, spaceAfter=4),
    "fine": _style("fine", 7.5, 10.5, textColor=SOFT, spaceAfter=3),
    "cell": _style("cell", 7, 9.5),
    "head": _style("head", 7.5, 10, fontName=BOLD),
    "caption": _style("caption", 6.5, 8.5, textColor=SOFT),
    # Hashes and names without spaces break anywhere.
    "code": _style("code", 7, 9.5, wordWrap="CJK"),
    "name": _style("name", 9, 13, wordWrap="CJK"),
}
