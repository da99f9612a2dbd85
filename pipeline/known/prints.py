"""The print of a clip: hashes of its frames and of their middles, about one frame a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.known.pdq import HASH_BYTES, pdq_of_crops
from pipeline.types import Frame

# Frames below this quality have no hash that says anything: black, flat, blurred. The default of Meta's vPDQ.
MIN_QUALITY: Final = 50
# The default of vPDQ, too.
_SPACING_S: Final = 1.0
# Of a longer clip every second, fourth ... second counts: 10 minutes have one hash a second, 3 hours one in 32.
MAX_HASHES: Final = 600
# Cut off at each edge, in shares of width and height. A hash finds most pictures that were cropped by 1 % more or less
# at each edge, so the whole one and the first two find copies that lost up to a tenth of width and height. The last one
# has no logos, tickers or borders.
CROPS: Final = (0.02, 0.04)
CENTRE: Final = 0.2
_VIEWS: Final = (*CROPS, CENTRE)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ClipPrint:
    """Hashes of a clip's frames by time.

    Attributes:
        hashes: PDQ hashes, `HASH_BYTES` bytes each, one after the other; none for a clip without structure.
        middles: for each of `CROPS` and for `CENTRE` as many hashes again, of the middles of the same frames; empty in
            prints of earlier versions.
    """

    hashes: bytes = b""
    middles: bytes = b""

    def __post_init__(self) -> None:
        if len(self.hashes) % HASH_BYTES:
            raise ValueError(f"a print has {HASH_BYTES} bytes for each hash, got {len(self.hashes)} bytes")
        if len(self.middles) not in (0, len(_VIEWS) * len(self.hashes)):
            raise ValueError(
                f"expected {len(_VIEWS)} times {len(self.hashes)} bytes of middles, got {len(self.middles)}"
            )

    def __len__(self) -> int:
        return len(self.hashes) // HASH_BYTES

    def words(self) -> Hashes:
        """uint64 [1 + V, N, 4]: of whole frames, then of the V middles, without them of whole frames again.

        The order of the bytes in a word is that of the machine, which no distance depends on.
        """
        data = self.hashes + (self.middles or len(_VIEWS) * self.hashes)
        return np.frombuffer(data, np.uint64).reshape(1 + len(_VIEWS), -1, HASH_BYTES // 8)


class PrintMaker:
    """Makes the print of a clip from the frames that a scan looks at anyway.

    Frames may come in any order and more than once, as where a clip is read again: a second costs one hash.
    """

    def __init__(self) -> None:
        self._spacing_s = _SPACING_S
        # The hashes of each stretch of `_spacing_s` seconds; None: its frame had no structure.
        self._found: dict[int, list[bytes] | None] = {}

    def add(self, frame: Frame) -> None:
        """Hash a frame and its middles, if it is the first of its second."""
        stretch = int(frame.t_s // self._spacing_s)
        if stretch in self._found:
            return
        whole, *middles = pdq_of_crops(frame.image, (0.0, *_VIEWS))
        if whole.quality < MIN_QUALITY:
            self._found[stretch] = None
        else:
            # A flat middle says nothing; the whole frame takes its place.
            self._found[stretch] = [
                each.bits if each.quality >= MIN_QUALITY else whole.bits for each in (whole, *middles)
            ]
        if len(self._found) > MAX_HASHES:
            self._thin_out()

    def made(self) -> ClipPrint:
        """The print of what came so far."""
        found = [bits for _, bits in sorted(self._found.items()) if bits is not None]
        if not found:
            return ClipPrint()
        whole, *middles = (b"".join(each) for each in zip(*found, strict=True))
        return ClipPrint(whole, b"".join(middles))

    def _thin_out(self) -> None:
        self._spacing_s *= 2
        thinner: dict[int, list[bytes] | None] = {}
        for stretch, bits in sorted(self._found.items()):
            thinner.setdefault(stretch // 2, bits)
        self._found = thinner
