"""A bound on what a compressed batch of messages may become: kafka-python (3.0.12) has none."""

from __future__ import annotations

import io
import zlib
from typing import Any, Final

import kafka.codec as codecs
from kafka.record import default_records, legacy_records

# A producer's batch has 1 MB at most by default, and JSON shrinks to a tenth. More is a bomb.
MAX_INFLATED_BYTES: Final = 64 << 20
# A producer writes one.
_MAX_MEMBERS: Final = 1000
# A xerial stream is a header and blocks, each with its length before it.
_XERIAL_HEADER_BYTES, _XERIAL_LENGTH_BYTES = 16, 4

Payload = bytes | bytearray | memoryview


class UnreadableBatchError(ValueError):
    """A compressed batch of messages cannot be read; each look at it would inflate it again.

    Attributes:
        last_offset: of the batch.
    """

    def __init__(self, error: Exception, last_offset: int) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.last_offset = last_offset


class InflatedTooLargeError(ValueError):
    """A batch would take more memory than any real one."""


def install() -> None:
    """Make kafka-python's consumers of this process inflate within the bound.

    The libraries of snappy, lz4 and zstd are optional; without one, its batches stay unreadable.
    """
    for name, decode in (("gzip", gzip_decode), ("snappy", snappy_decode), ("lz4", lz4_decode), ("zstd", zstd_decode)):
        for records in (default_records, legacy_records):
            if hasattr(records, f"{name}_decode"):
                setattr(records, f"{name}_decode", decode)
    inflate = default_records.DefaultRecordBatch._maybe_uncompress

    def inflate_once(batch: Any) -> None:
        try:
            inflate(batch)
        except Exception as error:
            raise UnreadableBatchError(error, batch.last_offset) from error

    default_records.DefaultRecordBatch._maybe_uncompress = inflate_once
    codecs.lz4_decode = lz4_decode  # called by `lz4_decode_old_kafka`


def gzip_decode(payload: Payload) -> bytes:
    """The inflated bytes of one or more gzip members.

    Raises:
        InflatedTooLargeError: they are more than `MAX_INFLATED_BYTES`.
        zlib.error: the bytes are no gzip, or end early.
    """
    inflated = bytearray()
    rest = bytes(payload)
    members = 0
    while rest:
        members = _count(members)
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        inflated += member.decompress(rest, MAX_INFLATED_BYTES + 1 - len(inflated))
        _check(len(inflated))
        if not member.eof:
            raise zlib.error("the gzip ends early")
        rest = member.unused_data
    return bytes(inflated)


def snappy_decode(payload: Payload) -> bytes:
    """The inflated bytes of a snappy block, or of a xerial stream of blocks: a block begins with its inflated length.

    Raises:
        InflatedTooLargeError: they are more than `MAX_INFLATED_BYTES`.
        ValueError: the bytes end early.
        Exception: of the library, for other invalid bytes.
    """
    raw = bytes(payload)
    if not codecs._detect_xerial_stream(raw):
        _check(_varint(raw))
        return bytes(_library("snappy").decompress(raw))
    inflated, at = bytearray(), _XERIAL_HEADER_BYTES
    while at < len(raw):
        start = at + _XERIAL_LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "big")
        block = raw[start:at]
        _check(len(inflated) + _varint(block))
        inflated += _library("snappy").decompress(block)
    return bytes(inflated)


def lz4_decode(payload: Payload) -> bytes:
    """The inflated bytes of one or more lz4 frames.

    Raises:
        InflatedTooLargeError: they are more than `MAX_INFLATED_BYTES`.
        ValueError: the bytes end early.
        RuntimeError: they are no lz4.
    """
    inflated, rest = bytearray(), bytes(payload)
    members = 0
    while rest:
        members = _count(members)
        frame = _library("lz4").LZ4FrameDecompressor()
        inflated += frame.decompress(rest, max_length=MAX_INFLATED_BYTES + 1 - len(inflated))
        _check(len(inflated))
        if not frame.eof:
            raise ValueError("the lz4 frame ends early")
        rest = frame.unused_data or b""
    return bytes(inflated)


def zstd_decode(payload: Payload) -> bytes:
    """The inflated bytes of one or more zstd frames.

    Raises:
        InflatedTooLargeError: they are more than `MAX_INFLATED_BYTES`, or need a window that large.
        Exception: of the library, for invalid bytes.
    """
    library = _library("zstd")
    reader = library.ZstdDecompressor(max_window_size=MAX_INFLATED_BYTES).stream_reader(
        io.BytesIO(bytes(payload)), read_across_frames=True
    )
    inflated = bytearray()
    try:
        while len(inflated) <= MAX_INFLATED_BYTES and (part := reader.read(1 << 20)):
            inflated += part
    except library.ZstdError as error:
        if "too much memory" in str(error):  # of a window larger than the bound
            raise _too_large() from error
        raise
    _check(len(inflated))
    return bytes(inflated)


def _count(members: int) -> int:
    """One more member: what follows it is copied each time, so that many empty ones would take hours."""
    if members == _MAX_MEMBERS:
        raise InflatedTooLargeError(f"a batch of messages has more than {_MAX_MEMBERS} compressed members")
    return members + 1


def _check(size: int) -> None:
    if size > MAX_INFLATED_BYTES:
        raise _too_large()


def _too_large() -> InflatedTooLargeError:
    return InflatedTooLargeError(f"a batch of messages inflates to more than {MAX_INFLATED_BYTES} bytes")


def _library(name: str) -> Any:
    """Of a codec, as kafka-python found it: it asks for a codec's library before it calls the codec."""
    library = getattr(codecs, name)
    if library is None:
        raise NotImplementedError(f"the library of {name} is not installed")
    return library


def _varint(block: bytes) -> int:
    """The inflated length at the start of a snappy block (Snappy's format_description.txt)."""
    size = 0
    for shift, byte in zip(range(0, 35, 7), block, strict=False):
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            return size
    raise ValueError("the snappy block ends early")
