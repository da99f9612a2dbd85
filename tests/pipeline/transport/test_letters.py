"""What dead letters carry: anything can be sent, and nothing is larger than the topic takes."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.letters import REASON_HEADERS, LetterBytes, short_letter, whole_letter

REASON = {"error": "why \ud800", "stage": "parse", "attempts": "0", "topic": "unmask.videos"}
raw = st.none() | st.binary(max_size=30)
headers = st.lists(st.tuples(st.text(st.characters(codec=None), max_size=9) | st.sampled_from(["error", "nulls"]), raw))


def header(letter: LetterBytes, name: str) -> bytes:
    return dict(letter.headers)[name]


@given(key=raw, value=raw, headers=headers)
def test_a_letter_can_always_be_sent_and_keeps_what_it_can(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    for letter in (whole_letter(key, value, headers, REASON), short_letter(key, value, headers, REASON)):
        assert letter.key is not None or letter.value is not None
        assert all(isinstance(text, bytes) and name.encode() is not None for name, text in letter.headers)
        assert (letter.key, letter.value or b"") == (key, value or b"")
        assert header(letter, "stage") == b"parse"
        own = [(name, text) for name, text in headers if name not in REASON_HEADERS]
        kept = [text for name, text in letter.headers if name not in REASON_HEADERS]
        assert kept == [text or b"" for _, text in own]
        if any(text is None for _, text in own) or (key is None and value is None):
            assert header(letter, "nulls")


@given(
    key=st.integers(0, 5000).map(bytes),
    value=st.integers(0, 50_000).map(bytes),
    headers=st.lists(st.tuples(st.text(max_size=3000), st.integers(0, 5000).map(bytes)), max_size=4),
)
def test_a_short_letter_is_small_and_says_what_is_missing(
    key: bytes, value: bytes, headers: list[tuple[str, bytes | None]]
) -> None:
    letter = short_letter(key, value, headers, REASON | {"error": "e" * 100_000})
    size = len(letter.key or b"") + len(letter.value or b"")
    size += sum(len(name.encode()) + len(text) for name, text in letter.headers)
    assert size < 12_000
    assert header(letter, "value_bytes") == str(len(value)).encode()
    assert header(letter, "value_sha256") == hashlib.sha256(value).hexdigest().encode()
    kept = [name for name, _ in letter.headers if name not in REASON_HEADERS]
    left_out = int(dict(letter.headers).get("headers_left_out", b"0"))
    assert len(kept) + left_out == len([name for name, _ in headers if name not in REASON_HEADERS])
