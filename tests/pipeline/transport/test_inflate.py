"""Compressed batches: what producers send is read, and a bomb is not inflated."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress

import kafka.codec as codecs
import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport import inflate
from pipeline.transport.inflate import InflatedTooLargeError

Codec = Callable[[bytes], bytes]
# Once as kafka-python's producer compresses, once as other clients do.
CODECS: dict[str, tuple[Codec, Codec]] = {
    "gzip": (codecs.gzip_encode, inflate.gzip_decode),
    "gzip, two members": (lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]), inflate.gzip_decode),
    "snappy, xerial": (codecs.snappy_encode, inflate.snappy_decode),
    "snappy, one block": (snappy.compress, inflate.snappy_decode),
    "lz4": (codecs.lz4_encode, inflate.lz4_decode),
    "lz4, two frames": (lambda data: lz4.frame.compress(data[:7]) + lz4.frame.compress(data[7:]), inflate.lz4_decode),
    "zstd": (codecs.zstd_encode, inflate.zstd_decode),
    "zstd, two frames": (
        lambda data: zstandard.compress(data[:7]) + zstandard.compress(data[7:]),
        inflate.zstd_decode,
    ),
}
# What is raised for bytes that are cut.
INVALID = (ValueError, RuntimeError, EOFError, zlib.error, zstandard.ZstdError, snappy.UncompressError)
every_codec = pytest.mark.parametrize(("encode", "decode"), CODECS.values(), ids=CODECS)


@every_codec
@given(
    data=st.binary(min_size=1, max_size=300_000)
    | st.builds(lambda part, n: part * n, st.binary(min_size=1, max_size=9), st.integers(1, 9999))
)
def test_what_was_compressed_comes_back(encode: Codec, decode: Codec, data: bytes) -> None:
    assert decode(encode(data)) == data
    assert decode(memoryview(encode(data))) == data


@every_codec
def test_a_bomb_is_not_inflated_far_beyond_the_bound(
    encode: Codec, decode: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = encode(bytes(200 << 20))
    monkeypatch.setattr(inflate, "MAX_INFLATED_BYTES", 1 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(InflatedTooLargeError, match="more than 1048576 bytes"):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < len(bomb) * 2 + (8 << 20)
    finally:
        tracemalloc.stop()


@every_codec
@given(cut=st.floats(0, 1, exclude_max=True))
def test_what_is_cut_is_never_taken_for_the_whole(encode: Codec, decode: Codec, cut: float) -> None:
    data = bytes(range(256)) * 40
    whole = encode(data)
    found = b""
    with suppress(*INVALID):
        found = decode(whole[: int(cut * len(whole))])
    assert found != data
    assert data.startswith(found)


def test_a_codec_without_its_library_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "lz4", None)
    with pytest.raises(NotImplementedError, match="lz4 is not installed"):
        inflate.lz4_decode(b"x")


@pytest.mark.parametrize(
    ("encode", "decode"),
    [(gzip.compress, inflate.gzip_decode), (lz4.frame.compress, inflate.lz4_decode)],
    ids=["gzip", "lz4"],
)
def test_many_empty_members_are_a_bomb_of_time(encode: Codec, decode: Codec) -> None:
    empty = encode(b"")
    with pytest.raises(InflatedTooLargeError, match="1000 compressed members"):
        decode(empty * 50_000)
    assert decode(empty * 900) == b""
