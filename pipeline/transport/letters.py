"""What a dead letter carries: the message as it came, or as much of it as Kafka takes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Headers = Iterable[tuple[str, bytes | None]]

# Headers that the worker adds: the reason, the topic that the message came from, and what was left out of it.
REASON_HEADERS: Final = frozenset(
    {"error", "stage", "attempts", "topic", "nulls", "value_bytes", "value_sha256", "key_bytes", "headers_left_out"}
)
# A reason is for people; exceptions can hold whole messages.
_ERROR_CHARS = 2000
# Of a message that is too large, this much is kept.
_KEY_BYTES = 256
_VALUE_BYTES = 4096
_HEADERS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LetterBytes:
    """A dead letter as it is sent. Key and value are not both null, and no header is: kafka-python refuses these."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def whole_letter(key: bytes | None, value: bytes | None, headers: Headers, reason: dict[str, str]) -> LetterBytes:
    """The message unchanged, with the reason in its headers.

    A null that cannot be sent becomes empty bytes, and the header `nulls` names it: `value`, or `header NAME`.

    Args:
        key: of the message.
        value: of the message.
        headers: of the message; those of an earlier reason are dropped.
        reason: further headers, of `REASON_HEADERS`; the error is cut to 2,000 characters.
    """
    kept: list[tuple[str, bytes]] = []
    nulls: list[str] = []
    for name, raw in headers:
        if name in REASON_HEADERS:
            continue
        if raw is None:
            nulls.append(f"header {name}")
        kept.append((_clean(name), raw or b""))
    if key is None and value is None:
        value = b""
        nulls.append("value")
    return LetterBytes(key, value, [*kept, *_reason(reason | ({"nulls": ", ".join(nulls)} if nulls else {}))])


def short_letter(key: bytes | None, value: bytes | None, headers: Headers, reason: dict[str, str]) -> LetterBytes:
    """The beginning of a message that is too large for the topic of dead letters: 9 kB at most, and the reason.

    The headers `value_bytes` and `value_sha256`, `key_bytes` and `headers_left_out` say what is missing.
    """
    facts: dict[str, str] = {}
    if value is not None:
        facts |= {"value_bytes": str(len(value)), "value_sha256": hashlib.sha256(value).hexdigest()}
    if key is not None and len(key) > _KEY_BYTES:
        facts["key_bytes"] = str(len(key))
        key = key[:_KEY_BYTES]
    kept: list[tuple[str, bytes | None]] = []
    room, left_out = _HEADERS_BYTES, 0
    for name, raw in headers:
        if name in REASON_HEADERS:
            continue
        size = len(_clean(name).encode()) + len(raw or b"")
        if size > room:
            left_out += 1
            continue
        room -= size
        kept.append((name, raw))
    if left_out:
        facts["headers_left_out"] = str(left_out)
    short = None if value is None else value[:_VALUE_BYTES]
    return whole_letter(key, short, kept, reason | facts)


def _reason(reason: dict[str, str]) -> list[tuple[str, bytes]]:
    return [(name, _clean(text[:_ERROR_CHARS]).encode()) for name, text in reason.items()]


def _clean(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode()
