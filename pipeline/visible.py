"""Text from others on its way to a terminal or a page: what would move the cursor or reorder a line becomes visible."""

from __future__ import annotations

import codecs
import io
import re
import sys
import unicodedata
from collections.abc import Mapping, MutableMapping
from typing import Any

# Control and format characters, lone surrogates, line and paragraph separators. Not the joiners of emoji and of scripts
# such as Persian.
_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_HANDLER = "unmask.json"
_KEPT = frozenset("\u200c\u200d")
# Up to the last @ of the place; a password may hold an @ that is not escaped. That of Redis, which people write into a
# setting by hand, may hold anything.
_PASSWORD = re.compile(r"(?<=://)[^/\s]*:[^/\s]*(?=@)")
_REDIS = re.compile(r"(\brediss?://)(?:(?!\w://)[^\"'<>\n])*:(?:(?!\w://)[^\"'<>\n])*(?=@)")


def escape_unencodable() -> None:
    """Let standard output and error write what their encoding lacks as JSON's escapes, instead of failing.

    A record in ASCII or Latin-1 thus stays valid JSON of the same content.
    """
    codecs.register_error(_HANDLER, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)), error.end


def visible(text: str) -> str:
    r"""The text on one line: control characters, bidirectional marks and the like as `\u001b` or `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(c) if unicodedata.category(c) in _CATEGORIES and c not in _KEPT else c for c in text)


def visible_lines(text: str) -> str:
    """The same, but line feeds and tabs stay."""
    return re.sub(r"[^\n\t]+", lambda part: visible(part.group()), text)


def masked(text: str) -> str:
    """The text without the names and passwords in its URIs: `redis://***@host`."""
    return _PASSWORD.sub("***", _REDIS.sub(r"\1***", text))


def markup(text: str) -> str:
    """Visible text in which rich finds no markup."""
    from rich.markup import escape

    return escape(visible(text))


def visible_event(logger: object, name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A processor of structlog: the texts of a line of the log."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = visible(masked(value))
        elif isinstance(value, str):
            event[key] = visible_lines(masked(value))
    return event


def _shown(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
