"""The print of a clip: hashes of its frames, about one a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.known.pdq import HASH_BYTES, pdq
from pipeline.types import Frame

# Frames below this quality have no hash that says anything: black, flat, blurred. The default of Meta's vPDQ.
MIN_QUALITY: Final = 50
# The default of vPDQ, too.
_SPACING_S: Final = 1.0
# Of a longer clip every second, fourth ... second counts: 10 minutes have one hash a second, 3 hours one in 32.
MAX_HASHES: Final = 600

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ClipPrint:
    """Hashes of a clip's frames by time.

    Attributes:
        hashes: PDQ hashes, `HASH_BYTES` bytes each, one after the other; none for a clip without structure.
    """

    hashes: bytes = b""

    def __post_init__(self) -> None:
        if len(self.hashes) % HASH_BYTES:
            raise ValueError(f"a print has {HASH_BYTES} bytes for each hash, got {len(self.hashes)} bytes")

    def __len__(self) -> int:
        return len(self.hashes) // HASH_BYTES

    def words(self) -> Hashes:
        """uint64 [N, 4]; the order of the bytes in a word is that of the machine, which no distance depends on."""
        return np.frombuffer(self.hashes, np.uint64).reshape(-1, HASH_BYTES // 8)


class PrintMaker:
    """Makes the print of a clip from the frames that a scan looks at anyway.

    Frames may come in any order and more than once, as where a clip is read again: a second costs one hash.
    """

    def __init__(self) -> None:
        self._spacing_s = _SPACING_S
        # The hash of each stretch of `_spacing_s` seconds; None: its frame had no structure.
        self._found: dict[int, bytes | None] = {}

    def add(self, frame: Frame) -> None:
        """Hash a frame, if it is the first of its second."""
        stretch = int(frame.t_s // self._spacing_s)
        if stretch in self._found:
            return
        found = pdq(frame.image)
        self._found[stretch] = found.bits if found.quality >= MIN_QUALITY else None
        if len(self._found) > MAX_HASHES:
            self._thin_out()

    def made(self) -> ClipPrint:
        """The print of what came so far."""
        return ClipPrint(b"".join(bits for _, bits in sorted(self._found.items()) if bits is not None))

    def _thin_out(self) -> None:
        self._spacing_s *= 2
        thinner: dict[int, bytes | None] = {}
        for stretch, bits in sorted(self._found.items()):
            thinner.setdefault(stretch // 2, bits)
        self._found = thinner
