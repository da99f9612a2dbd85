"""Degradations of pictures: compression, resizing, blur, noise, filters. Each is a pure function.

All take and return uint8 [H, W, 3], RGB, of one size.
"""

from __future__ import annotations

import math
from fractions import Fraction

import cv2
import numpy as np

from pipeline.types import Image


def jpeg(image: Image, quality: int) -> Image:
    """Compressed and decompressed by JPEG at `quality` 1..100, chroma halved both ways."""
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def jpeg_size_bytes(image: Image, quality: int) -> int:
    """Bytes of the image as JPEG: whether compressibility alone tells the classes apart."""
    return len(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1])


def h264(image: Image, crf: float, *, motion_px: tuple[float, float] = (0.7, 0.4), frames: int = 3) -> Image:
    """The image as the last frame of a short H.264 clip (x264, preset veryfast), about 4 ms at 224 px.

    The picture moves slightly from frame to frame, like a talking head, so that the last frame is predicted from
    others and has the deblocking and skipped residuals of real video, not of a still.

    Args:
        image: sides of at least 16 px; odd ones are padded by one px for the encoder and cut again.
        crf: constant rate factor, 0 to 51. FaceForensics++'s c23 and c40 are encoded at 23 and 40.
        motion_px: movement from frame to frame, x and y.
        frames: of the clip.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    import av

    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = (even.shape[1], even.shape[0])
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    # zerolatency: no look-ahead and no B-frames, so each frame is returned at once.
    encoder.options = {"crf": f"{crf:g}", "preset": "veryfast", "tune": "zerolatency", "threads": "1"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = []
    for number in range(frames):
        away = frames - 1 - number
        shift = np.array([[1, 0, motion_px[0] * away], [0, 1, motion_px[1] * away]], np.float32)
        moved = cv2.warpAffine(even, shift, size, borderMode=cv2.BORDER_REFLECT) if away else even
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(moved), format="rgb24")
        frame.pts = number
        for packet in encoder.encode(frame):
            decoded += decoder.decode(packet)
    for packet in encoder.encode(None):
        decoded += decoder.decode(packet)
    decoded += decoder.decode(None)
    return np.ascontiguousarray(decoded[-1].to_ndarray(format="rgb24")[:height, :width])


def resize(image: Image, factor: float, *, up: int = cv2.INTER_LINEAR) -> Image:
    """Shrunk to `factor` of its size and enlarged again, like a small face in front of a detector.

    Args:
        image: the picture.
        factor: 0 to 1.
        up: OpenCV's interpolation for enlarging; shrinking uses area interpolation.
    """
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=up))


def blur(image: Image, sigma_px: float) -> Image:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px))


def defocus(image: Image, radius_px: float) -> Image:
    """The blur of a lens out of focus: a point becomes a disc of this radius, with a soft edge of one px."""
    reach = math.ceil(radius_px)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    disc = (radius_px + 0.5 - np.hypot(x, y)).clip(0, 1)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT_101))


def motion_blur(image: Image, length_px: float, angle_degrees: float) -> Image:
    """The blur of a straight movement during the exposure, over `length_px` in a direction (0: along x)."""
    # Centres of pieces of half a px, each shared between the four px around it.
    count = max(2, math.ceil(2 * length_px))
    along = ((np.arange(count) + 0.5) / count - 0.5) * length_px
    turn = math.radians(angle_degrees)
    reach = math.ceil(length_px / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    x, y = along * math.cos(turn) + reach, along * math.sin(turn) + reach
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = np.abs(1 - dx - (x - left)) * np.abs(1 - dy - (y - top))
        # A weight of 0 may belong to a px outside the kernel.
        at = np.minimum(top + dy, 2 * reach), np.minimum(left + dx, 2 * reach)
        np.add.at(kernel, at, weight.astype(np.float32))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101))


def noise(image: Image, sigma: float, rng: np.random.Generator, *, luma: bool = False, grain_px: float = 0.0) -> Image:
    """Gaussian noise.

    Args:
        image: the picture.
        sigma: standard deviation in grey levels of 0..255.
        rng: of the noise.
        luma: the same noise in all channels, as left by film and strong denoising; else separate noise per channel.
        grain_px: sigma of the blur that makes the noise coarser, as demosaicing and enlarging do; 0: white.
    """
    field = rng.standard_normal(image.shape[:2] if luma else image.shape, np.float32)
    if grain_px > 0:
        field = cv2.GaussianBlur(field, (0, 0), grain_px)
        field *= 1 / max(float(field.std()), 1e-6)
    noisy = image + (field[..., None] if luma else field) * sigma
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def mosaic(image: Image, cell_px: float) -> Image:
    """Pixelation: squares of about `cell_px`, each of one colour."""
    height, width = image.shape[:2]
    cells = max(1, round(width / cell_px)), max(1, round(height / cell_px))
    small = cv2.resize(image, cells, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def sharpen(image: Image, amount: float, radius_px: float = 1.0) -> Image:
    """Unsharp mask: an `amount` of 0 changes nothing, 1 doubles the detail that a blur of sigma `radius_px` removes."""
    return np.asarray(cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), radius_px), -amount, 0))


# Rows: weights of the original's R, G and B in R, G and B of the toned picture. Values of the sepia filter in the W3C's
# Filter Effects Module, https://www.w3.org/TR/filter-effects-1/#sepiaEquivalent.
_SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)


def sepia(image: Image, amount: float) -> Image:
    """Toned like an old photograph: 0 changes nothing, 1 removes the colours."""
    matrix = np.eye(3, dtype=np.float32) * np.float32(1 - amount) + _SEPIA * np.float32(amount)
    return np.asarray(cv2.transform(image, matrix))
