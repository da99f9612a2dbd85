"""Tables of the PDF, which go on over pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from reportlab.platypus import Flowable, LongTable, Paragraph, TableStyle

from web.evidence.pdf_text import RULE, SOFT, Texts

# Characters of a cell: the narrowest one has about 60 lines of 20 on a page.
_LONG: Final = 1000
_NAME_SHARE: Final = 0.19


def values_table(texts: Texts, rows: Sequence[tuple[str, Any]], width_pt: float) -> Flowable:
    """Names and their values; those that are None are left out."""
    shown = [(name, str(value)) for name, value in rows if value is not None]
    cells = [[texts.paragraph(name, "head"), texts.paragraph(value, "code")] for name, value in shown]
    return _ruled(cells, [width_pt * _NAME_SHARE, width_pt * (1 - _NAME_SHARE)], 0, _longest(shown))


def text_table(
    texts: Texts,
    width_pt: float,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    shares: Sequence[float],
    codes: Sequence[int] = (),
) -> Flowable:
    """Rows of text under a head that is repeated on each page.

    Args:
        texts: makes the paragraphs.
        width_pt: of the table, in points.
        heads: of the columns.
        rows: a text for each column.
        shares: widths of the columns, in any unit.
        codes: numbers of the columns whose texts break anywhere, as hashes must.
    """
    cells = [[texts.paragraph(head, "head") for head in heads]]
    for row in rows:
        styles = ["code" if i in codes else "cell" for i in range(len(row))]
        cells.append([texts.paragraph(text, style) for text, style in zip(row, styles, strict=True)])
    return _ruled(cells, [width_pt * share / sum(shares) for share in shares], 1, _longest(rows))


def _longest(rows: Sequence[Sequence[str]]) -> int:
    return max((len(text) for row in rows for text in row), default=0)


def _ruled(cells: list[list[Paragraph]], widths: Sequence[float], heads: int, longest: int) -> Flowable:
    # A row that may be longer than a page is split.
    table = LongTable(cells, colWidths=list(widths), repeatRows=heads, hAlign="LEFT", splitInRow=int(longest > _LONG))
    style: list[tuple[Any, ...]] = [
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, RULE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 6),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    if heads:
        style.append(("LINEBELOW", (0, 0), (-1, 0), 0.6, SOFT))
    table.setStyle(TableStyle(style))
    return table
