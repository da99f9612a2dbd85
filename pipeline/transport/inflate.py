"""A bound on what a compressed batch of messages may become: kafka-python (3.0.12) has none."""

from __future__ import annotations

import zlib
from typing import Final

from kafka.record import default_records, legacy_records

# A producer's batch has 1 MB at most by default, and JSON shrinks to a tenth. More is a bomb.
MAX_INFLATED_BYTES: Final = 64 << 20


class InflatedTooLargeError(ValueError):
    """A batch would take more memory than any real one."""


def install() -> None:
    """Make kafka-python's consumers of this process inflate gzip within the bound."""
    default_records.gzip_decode = gzip_decode
    legacy_records.gzip_decode = gzip_decode


def gzip_decode(payload: bytes | bytearray | memoryview) -> bytes:
    """The inflated bytes of one or more gzip members.

    Raises:
        InflatedTooLargeError: they are more than `MAX_INFLATED_BYTES`.
        zlib.error: the bytes are no gzip, or end early.
    """
    inflated = bytearray()
    rest = bytes(payload)
    while rest:
        member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        inflated += member.decompress(rest, MAX_INFLATED_BYTES + 1 - len(inflated))
        if len(inflated) > MAX_INFLATED_BYTES:
            raise InflatedTooLargeError(f"a batch of messages inflates to more than {MAX_INFLATED_BYTES} bytes")
        if not member.eof:
            raise zlib.error("the gzip ends early")
        rest = member.unused_data
    return bytes(inflated)
