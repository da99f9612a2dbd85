"""PQ and HLG pictures look as their SDR originals do."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from hypothesis import given
from hypothesis import strategies as st

from pipeline.types import Image
from pipeline.video.hdr import HLG, PQ, ToSdr, hlg_to_scene, nits_to_pq, pq_to_nits, tone_curve
from pipeline.video.sandbox import DecodeError, DecodeServer
from tests import media
from tests.pipeline.video.reading import read

GREYS = np.arange(0, 256, 5)
_709_TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


@given(st.floats(0, 10_000))
def test_pq_has_an_inverse(nits: float) -> None:
    assert pq_to_nits(nits_to_pq(np.array(nits))) == pytest.approx(nits, rel=1e-6, abs=1e-6)


def test_known_points_of_the_curves() -> None:
    """ITU-R BT.2408-7, table 1: white paper is at 58 % of PQ and 75 % of HLG, 203 cd/m2."""
    assert nits_to_pq(np.array([100.0, 203.0, 1000.0, 10_000.0])) == pytest.approx(
        [0.508, 0.581, 0.752, 1.0], abs=0.001
    )
    assert 1000 * hlg_to_scene(np.array(0.75)) ** 1.2 == pytest.approx(203, abs=1)
    assert hlg_to_scene(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1 / 12, 1], abs=1e-6)


def test_the_tone_curve_keeps_the_dark_and_ends_at_white() -> None:
    nits = np.linspace(0, 1000, 500)
    curve = tone_curve(nits)
    assert (np.diff(curve) > -1e-9).all()
    assert curve[-1] == pytest.approx(203, rel=1e-3)
    assert curve[nits < 80] == pytest.approx(nits[nits < 80], rel=1e-3)


def signal_of(sdr: Image, transfer: int) -> Image:
    """An SDR picture as a player of HDR would show it: white at 203 cd/m2, encoded again."""
    light = np.power(sdr / 255, 2.4) @ _709_TO_2020.T * 203
    if transfer == PQ:
        return nits_to_pq(light)
    scene = light / 1000
    luma = np.maximum(scene @ np.array([0.2627, 0.6780, 0.0593]), 1e-9)
    scene *= (luma ** (1 / 1.2 - 1))[..., None]
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_picture_that_was_sdr_looks_like_it_again(transfer: int) -> None:
    rng = np.random.default_rng(0)
    sdr = rng.integers(0, 256, (130, 70, 3), np.uint8)
    sdr[:, 0] = np.resize(GREYS, 130)[:, None]
    found = np.zeros_like(sdr)
    ToSdr(transfer).write(np.rint(signal_of(sdr, transfer) * 65_535).astype(np.uint16), found)
    dark = sdr.max(axis=2) < 170
    assert np.abs(found[dark].astype(int) - sdr[dark]).max() <= 5
    # White and what is near it is rolled off: a part of the range belongs to highlights.
    assert np.abs(found.astype(int) - sdr).max() <= 30
    assert (np.diff(found[: len(GREYS), 0, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_tagged_clip_is_mapped(transfer: int, decode_server: DecodeServer, tmp_path: Path) -> None:
    face = media.face_picture()[: media.face_picture().shape[0] // 2 * 2, : media.face_picture().shape[1] // 2 * 2]
    signal = np.rint(signal_of(face, transfer) * 65_535).astype("<u2")
    path = tmp_path / "hdr.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = face.shape[1], face.shape[0], "yuv420p10le"
        stream.codec_context.colorspace, stream.codec_context.color_trc = 9, transfer
        stream.codec_context.color_primaries = 9
        frame = av.VideoFrame.from_ndarray(signal, "rgb48le").reformat(
            format="yuv420p10le", dst_colorspace=Colorspace.BT2020, src_colorspace=Colorspace.BT2020
        )
        frame.colorspace, frame.color_trc, frame.color_primaries, frame.pts = 9, transfer, 9, 0
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    (image,) = read(decode_server, path).images
    assert np.abs(image.astype(int) - face).mean() < 6


@pytest.mark.parametrize("transfer", [2, HLG])
def test_dolby_vision_is_read_where_it_has_a_picture_for_others(
    transfer: int, decode_server: DecodeServer, tmp_path: Path
) -> None:
    """Profile 5 leaves its transfer function open (2 of H.273); profile 8.4 is HLG."""
    path = tmp_path / "dolby.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        stream.codec_context.codec_tag = "dvh1"
        stream.codec_context.color_trc = transfer
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 100, np.uint8), "rgb24").reformat(
                format="yuv420p10le"
            )
            frame.pts, frame.color_trc = number, transfer
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    if transfer == HLG:
        assert len(read(decode_server, path).images) == 3
        return
    with pytest.raises(DecodeError, match="Dolby Vision profile 5"):
        read(decode_server, path)
