"""High dynamic range to standard: PQ and HLG pictures as an SDR screen shows them.

PQ and HLG are those of ITU-R BT.2100-2, the tone curve is the EETF of ITU-R BT.2390-10 (section 5.4), the primaries are
converted by ITU-R BT.2087-0, and the result is encoded for the screen of ITU-R BT.1886.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.types import Floats, Image

# Numbers of ITU-T H.273, table 3.
PQ: Final = 16
HLG: Final = 18
TRANSFERS: Final = frozenset({PQ, HLG})
# cd/m2. Most material is mastered for a peak of 1,000; white paper, the peak of SDR, is at 203 (ITU-R BT.2408-7).
_SOURCE_PEAK: Final = 1000.0
_SDR_PEAK: Final = 203.0
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_HLG_A, _HLG_B, _HLG_C = 0.17883277, 0.28466892, 0.55991073
# BT.2100: gamma of the system for a peak of 1,000 cd/m2.
_HLG_GAMMA = 1.2
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_2020_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_SCREEN_GAMMA = 2.4
# Steps of the curves that are looked up.
_STEPS = 4096
# Rows at a time: the temporary arrays stay in the processor's cache, and a large frame takes no gigabytes.
_ROWS = 64


def pq_to_nits(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """EOTF of PQ: 0..1 to cd/m2."""
    power = np.power(signal, 1 / _M2)
    return 10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def nits_to_pq(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of `pq_to_nits`."""
    power = np.power(np.asarray(nits, np.float64) / 10_000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_scene(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse OETF of HLG: 0..1 to light of the scene, 0..1."""
    low = np.square(signal) / 3
    high = (np.exp((signal - _HLG_C) / _HLG_A) + _HLG_B) / 12
    return np.where(signal <= 0.5, low, high)


def tone_curve(nits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """From cd/m2 of the source to those of an SDR screen: unchanged in the dark, rolled off towards the peak."""
    peak = nits_to_pq(np.array(_SOURCE_PEAK))
    ratio = nits_to_pq(np.array(_SDR_PEAK)) / peak
    signal = np.minimum(nits_to_pq(nits) / peak, 1.0)
    knee = 1.5 * ratio - 0.5
    t = (signal - knee) / (1 - knee)
    rolled = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * ratio
    return pq_to_nits(np.where(signal < knee, signal, rolled) * peak)


class ToSdr:
    """Maps pictures of one transfer function."""

    def __init__(self, transfer: int) -> None:
        """For `PQ` or `HLG`."""
        codes = np.arange(65_536) / 65_535
        self._hlg = transfer == HLG
        self._linear = (hlg_to_scene(codes) if self._hlg else pq_to_nits(codes)).astype(np.float32)
        # By the square root of light, so that the steps are fine in the dark.
        light = np.square(np.arange(_STEPS) / (_STEPS - 1)) * _SOURCE_PEAK
        gain = np.divide(tone_curve(light), light, out=np.ones(_STEPS), where=light > 0)
        gain[0] = gain[1]
        self._gain = gain.astype(np.float32)
        screen = np.square(np.arange(_STEPS) / (_STEPS - 1))
        self._encoded = np.rint(255 * np.power(screen, 1 / _SCREEN_GAMMA)).astype(np.uint8)

    def write(self, signal: npt.NDArray[np.uint16], out: Image) -> None:
        """Write the SDR picture into `out`.

        Args:
            signal: uint16 [H, W, 3], RGB of BT.2020 primaries in full range.
            out: uint8 [H, W, 3], RGB of BT.709.
        """
        for top in range(0, len(signal), _ROWS):
            rows = slice(top, top + _ROWS)
            light: Floats = self._linear[signal[rows]]
            if self._hlg:
                luma = np.maximum(light @ _LUMA_2020, 1e-6)
                light *= (_SOURCE_PEAK * np.power(luma, _HLG_GAMMA - 1))[..., None]
            brightest = light.max(axis=2)
            at = np.sqrt(np.minimum(brightest / np.float32(_SOURCE_PEAK), 1)) * (_STEPS - 1)
            light *= (self._gain[at.astype(np.int32)] / np.float32(_SDR_PEAK))[..., None]
            screen = np.clip(light @ _2020_TO_709.T, 0, 1)
            out[rows] = self._encoded[(np.sqrt(screen) * (_STEPS - 1) + 0.5).astype(np.int32)]
