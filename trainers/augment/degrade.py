"""What happens to real-life pictures on their way: compression, resizing, blur, noise. Each is a pure function.

All take and give uint8 [H, W, 3], RGB, of one size.
"""

from __future__ import annotations

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

    The picture moves a little from frame to frame, as a talking head does, so that the last frame is predicted from
    others and carries the deblocking and the skipped residuals of real video, not those of a still.

    Args:
        image: sides of at least 16 px; odd ones are padded by one px for the encoder and cut again.
        crf: constant rate factor, 0 to 51. FaceForensics++'s c23 and c40 are encoded at 23 and 40.
        motion_px: by how much the picture moves from frame to frame, x and y.
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
    # zerolatency: no look-ahead and no B-frames, so each frame comes out as it goes in.
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
    """Shrunk to `factor` of its size and brought back, as a small face is before a detector sees it.

    Args:
        image: the picture.
        factor: 0 to 1.
        up: OpenCV's interpolation for the way back; the way down is by area.
    """
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, round(width * factor)), max(1, round(height * factor))), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=up))


def blur(image: Image, sigma_px: float) -> Image:
    """Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px))


def noise(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """White Gaussian noise of standard deviation `sigma` in grey levels of 0..255."""
    noisy = image + rng.standard_normal(image.shape, np.float32) * sigma
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


def sharpen(image: Image, amount: float) -> Image:
    """Unsharp mask with a radius of one px: 0 changes nothing, 1 doubles what the blur takes away."""
    return np.asarray(cv2.addWeighted(image, 1 + amount, cv2.GaussianBlur(image, (0, 0), 1.0), -amount, 0))
