from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from PIL import Image as Pillow

from pipeline.types import Image
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.pipeline.video.reading import read

# Luma weights of red and blue: ITU-R BT.601, BT.709, BT.2020.
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def colour_bars() -> Image:
    """uint8 [128, 256, 3]: the eight saturated colours, and below them greys."""
    bars = np.array([(r, g, b) for g in (255, 0) for r in (255, 0) for b in (255, 0)], np.uint8)
    greys = np.linspace(0, 255, 8).astype(np.uint8)[:, None].repeat(3, 1)
    return np.concatenate([row[None].repeat(32, 1).repeat(64, 0) for row in (bars, greys)])


def portrait() -> Image:
    return cv2.resize(media.face_picture(), (256, 128), interpolation=cv2.INTER_AREA)


def error(image: Image, expected: Image) -> tuple[float, float]:
    """Mean and 99th percentile of the absolute difference, in levels of 0..255."""
    difference = np.abs(image.astype(float) - expected)
    return float(difference.mean()), float(np.percentile(difference, 99))


def by_the_standard(yuv: list[Image], matrix: str, full_range: bool) -> Image:
    """RGB of 4:2:0 planes with repeated chroma, in floating point."""
    kr, kb = WEIGHTS[matrix]
    kg = 1 - kr - kb
    y, u, v = (plane.astype(float) for plane in yuv)
    u, v = (np.repeat(np.repeat(plane, 2, 0), 2, 1) - 128 for plane in (u, v))
    if not full_range:
        y, u, v = (y - 16) * 255 / 219, u * 255 / 224, v * 255 / 224
    red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / kg
    return np.rint(np.clip(np.stack([red, green, blue], -1), 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("picture", [colour_bars, portrait])
def test_every_matrix_and_range_matches_swscale_and_the_standard(
    decode_server: DecodeServer, tmp_path: Path, picture: Callable[[], Image], matrix: media.Matrix, full_range: bool
) -> None:
    original = picture()
    path = tmp_path / "clip.mkv"
    media.encode(path, [(0.0, original)], codec="ffv1", matrix=matrix, full_range=full_range)
    image = read(decode_server, path).images[0]

    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    planes = [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    mean, high = error(image, by_the_standard(planes, matrix, full_range))
    assert mean < 1.2
    assert high <= 3

    swscale = frame.reformat(
        format="rgb24",
        src_colorspace=MATRICES[matrix],
        dst_colorspace=MATRICES[matrix],
        src_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
    ).to_ndarray()
    # Chroma is repeated here and interpolated by swscale: equal except near its edges.
    away = _away_from_chroma_edges(planes[1], planes[2])
    mean, high = error(image[away], swscale[away])
    assert mean < 1.3
    assert high <= 4

    mean, _ = error(image, original)
    assert mean < 3


def _away_from_chroma_edges(u: Image, v: Image) -> np.ndarray:
    """bool [2 H, 2 W]: where the chroma planes [H, W] hardly change within two samples."""
    kernel = np.ones((5, 5))
    change = [cv2.dilate(plane, kernel).astype(int) - cv2.erode(plane, kernel) for plane in (u, v)]
    return np.repeat(np.repeat(np.maximum(*change) <= 2, 2, 0), 2, 1)


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p", "yuv422p", "yuv444p12le", "gbrp10le", "gray"]
)
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
def test_other_depths_and_layouts_keep_their_colours(
    decode_server: DecodeServer, tmp_path: Path, pix_fmt: str, matrix: media.Matrix
) -> None:
    path = tmp_path / "clip.mkv"
    original = portrait()
    if pix_fmt == "gray":
        original = cv2.cvtColor(cv2.cvtColor(original, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    tag = None if pix_fmt == "gbrp10le" else matrix
    media.encode(path, [(0.0, original)], codec="ffv1", pix_fmt=pix_fmt, matrix=tag, full_range=pix_fmt == "gray")
    result = read(decode_server, path)
    assert result.info.pixel_format == pix_fmt
    mean, _ = error(result.images[0], original)
    assert mean < (2.5 if "420" in pix_fmt or "422" in pix_fmt else 1.0)


@pytest.mark.parametrize(("size", "matrix"), [((640, 480), "bt601"), ((1280, 720), "bt709"), ((720, 1280), "bt709")])
def test_untagged_colours_follow_the_size(
    decode_server: DecodeServer, tmp_path: Path, size: tuple[int, int], matrix: media.Matrix
) -> None:
    picture = cv2.resize(portrait(), size)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(
        format="yuv420p",
        src_colorspace=MATRICES[matrix],
        dst_colorspace=MATRICES[matrix],
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )
    path = tmp_path / "untagged.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    mean, _ = error(read(decode_server, path).images[0], picture)
    assert mean < 2


def test_a_large_photo_is_bt601_too(decode_server: DecodeServer, tmp_path: Path) -> None:
    picture = cv2.resize(portrait(), (1920, 1080))
    for name in ("photo.jpg", "photo.webp"):
        Pillow.fromarray(picture).save(tmp_path / name, quality=95)
        mean, _ = error(read(decode_server, tmp_path / name).images[0], picture)
        assert mean < 2, name


def test_transparent_pixels_are_black(decode_server: DecodeServer, tmp_path: Path) -> None:
    alpha = np.zeros((128, 256), np.uint8)
    alpha[:, 64:128], alpha[:, 128:] = 128, 255
    rgba = np.dstack([portrait(), alpha])
    path = tmp_path / "alpha.png"
    Pillow.fromarray(rgba).save(path)
    image = read(decode_server, path).images[0]
    expected = np.rint(portrait() * (alpha[..., None] / 255)).astype(np.uint8)
    assert np.abs(image.astype(int) - expected).max() <= 1

    clip = tmp_path / "alpha.mov"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("qtrle", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 128, "argb"
        frame = av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format="argb")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(read(decode_server, clip).images[0].astype(int) - expected).max() <= 1


def test_a_palette_keeps_its_colours(decode_server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "palette.png"
    palette = Pillow.fromarray(colour_bars()).quantize(16)
    palette.save(path)
    assert error(read(decode_server, path).images[0], np.asarray(palette.convert("RGB")))[1] <= 1
