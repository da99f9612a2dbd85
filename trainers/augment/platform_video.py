"""Compression as on video platforms: one frame of a short clip of a moving crop, encoded twice.

The first pass is the uploader's, the second the platform's, at another frame rate and size: two codec passes imitate
a platform (arXiv:2508.08765), and clips of many frames did better than single pictures for NTech-Lab (DFDC, third
place). B-frames and look-ahead are on, so most frames are predicted from both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np

from pipeline.types import Floats, Image

# Below it, blocks of 16 px leave no detail of a face.
_SMALLEST_PX = 48


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """Shares and strengths; CRFs and scales are drawn uniformly from a range."""

    # Share of the crops; these get no other compression.
    share: float = 0.0
    # Frames of the clip before some are dropped.
    frames: tuple[int, int] = (4, 7)
    first_crf: tuple[float, float] = (17.0, 30.0)
    # Share of these crops that is encoded a second time.
    second_share: float = 0.8
    second_crf: tuple[float, float] = (23.0, 40.0)
    # Part of its size at which the second pass encodes the picture; 1 otherwise.
    scale_share: float = 0.5
    scale: tuple[float, float] = (0.4, 1.0)
    # Share of the second passes that keep only every second frame.
    half_rate_share: float = 0.4
    # Motion between two frames: shift in parts of the side, zoom as a factor, turn in degrees; standard deviations.
    # Landmarks of 13 talking heads at 22 to 30 frames a second, averaged over five frames: shift .001 to .014, zoom
    # .002 to .009, turn .12 to .68 degrees, correlation with the next motion .5 to .9 in most (FaceForensics++, DFDC
    # and others; YuNet).
    shift: float = 0.007
    zoom: float = 0.005
    turn_degrees: float = 0.35
    # Share of the motion that continues into the next frame: heads move smoothly.
    persistence: float = 0.8
    # .npy, float32 [T, F, 4], tracks of real heads, see `motion_of`; empty: a random walk.
    tracks: str = ""


def platform_video(
    image: Image, rng: np.random.Generator, config: PlatformConfig, tracks: Floats | None = None
) -> Image:
    """One frame of a clip of the crop, encoded once or twice.

    Args:
        image: uint8 [H, H, 3], RGB, of at least 48 px.
        rng: source of randomness; the same state gives every picture of one size the same motion and codec settings.
        config: settings.
        tracks: float32 [T, F, 4], motion of real heads, instead of a random walk.

    Returns:
        uint8 [S, S, 3], S at most H: the platform's size. The face is at the same place as in `image`.

    Raises:
        ModuleNotFoundError: PyAV is not installed.
    """
    low, high = config.frames
    count = int(rng.integers(low, high + 1))
    poses = _poses(count, rng, config, tracks)
    half_rate = rng.random() < config.half_rate_share
    kept = list(range(int(rng.integers(2)), count, 2)) if half_rate else list(range(count))
    chosen = int(rng.integers(len(kept)))
    # The chosen frame is the unchanged picture; the others move away from it.
    still = poses[kept[chosen]]
    clip = [_moved(image, poses[number] - still) for number in range(count)]
    preset = ("superfast", "veryfast", "faster")[rng.integers(3)]
    clip = transcoded(clip, round(rng.uniform(*config.first_crf)), preset=preset)
    scale = rng.uniform(*config.scale) if rng.random() < config.scale_share else 1.0
    crf = round(rng.uniform(*config.second_crf))
    if rng.random() >= config.second_share:
        return clip[kept[chosen]]
    side = max(_SMALLEST_PX, round(image.shape[0] * scale))
    side = min(side, image.shape[0])
    resized = [cv2.resize(clip[number], (side, side), interpolation=cv2.INTER_AREA) for number in kept]
    return transcoded(resized, crf, preset=preset)[chosen]


def transcoded(clip: list[Image], crf: float, *, preset: str = "veryfast", b_frames: int = 3) -> list[Image]:
    """A clip through x264 and back, frame by frame.

    Args:
        clip: frames uint8 [H, W, 3], RGB, of one size; odd sides are padded for the encoder.
        crf: constant rate factor, 0 to 51.
        preset: of x264.
        b_frames: most B-frames in a row.
    """
    import av

    height, width = clip[0].shape[:2]
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = width + width % 2, height + height % 2
    encoder.pix_fmt = "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"crf": f"{crf:g}", "preset": preset, "bf": str(b_frames), "threads": "1"}
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    decoded = []
    for number, picture in enumerate(clip):
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame.pts = number
        for packet in encoder.encode(frame):
            decoded += decoder.decode(packet)
    for packet in encoder.encode(None):
        decoded += decoder.decode(packet)
    decoded += decoder.decode(None)
    return [np.ascontiguousarray(frame.to_ndarray(format="rgb24")[:height, :width]) for frame in decoded]


def motion_of(landmarks: Floats) -> Floats:
    """The motion of a tracked head from its landmarks in consecutive frames.

    Args:
        landmarks: float32 [F, 5, 2], px.

    Returns:
        float32 [F, 4] against the first frame: shift in x and y in parts of a crop's side, logarithm of the zoom, and
        turn in radians, counter-clockwise.
    """
    eyes = landmarks[:, :2].mean(axis=1)
    mouth = landmarks[:, 3:].mean(axis=1)
    axis = mouth - eyes
    length = np.linalg.norm(axis, axis=1)
    # An eye distance is .403 of the side of a DFDC crop, and eyes to mouth .426.
    side = length / 0.426
    centre = (eyes + mouth) / 2
    shift = (centre - centre[0]) / side[0]
    zoom = np.log(length / length[0])
    turn = np.unwrap(np.arctan2(axis[:, 0], axis[:, 1]))
    return np.column_stack([shift, zoom, turn - turn[0]]).astype(np.float32)


def _poses(count: int, rng: np.random.Generator, config: PlatformConfig, tracks: Floats | None) -> Floats:
    """Shift, zoom and turn of each frame, float32 [F, 4]."""
    if tracks is not None and len(tracks):
        track = tracks[rng.integers(len(tracks))]
        start = int(rng.integers(max(1, len(track) - count + 1)))
        # A short track is played back and forth.
        steps = np.abs((np.arange(count) + start + len(track) - 1) % max(1, 2 * len(track) - 2) - (len(track) - 1))
        return np.asarray(track[steps], np.float32)
    spread = np.array([config.shift, config.shift, config.zoom, np.radians(config.turn_degrees)])
    # Each head has its own amount of motion: from still to twice the mean.
    spread = spread * rng.uniform(0.1, 2.0)
    keep = config.persistence
    velocity = rng.standard_normal(4) * spread
    poses = np.zeros((count, 4))
    for number in range(1, count):
        velocity = keep * velocity + np.sqrt(1 - keep**2) * rng.standard_normal(4) * spread
        poses[number] = poses[number - 1] + velocity
    return poses.astype(np.float32)


def _moved(image: Image, pose: Floats) -> Image:
    if not pose.any():
        return image
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), float(np.degrees(pose[3])), float(np.exp(pose[2])))
    turn[:, 2] += pose[:2] * (width, height)
    return np.asarray(cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101))
