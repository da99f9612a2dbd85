"""Video for tests and for the demo: generated, never stored.

The astronaut of scikit-image (a NASA portrait in the public domain, in the wheel) is cut out and moved smoothly in
front of a textured background. A `Scene` gives the position of every face at any time. It is stored in the clip's
metadata, so a fake can be made of any clip that `make_clip` wrote.

`python -m tests.media OUT_DIR` writes original.mp4 and fake.mp4.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pillow_heif
import skimage.data
from av.codec import codecs_available
from av.video.reformatter import ColorRange, Colorspace, Interpolation

Picture = npt.NDArray[np.uint8]
Matrix = Literal["bt601", "bt709", "bt2020"]

# In px of the cut-out below: centre of the face, and its height from chin to fringe.
FACE_CENTRE = (224.0, 130.0)
FACE_HEIGHT_PX = 125.0
# AVColorSpace of the tags; swscale's numbers for the matrices are av's `Colorspace`.
_TAGS: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}
_MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}


@functools.cache
def face_picture() -> Picture:
    """uint8 [512, 512, 3], RGB: one frontal face, about x 175..275 and y 60..190."""
    return np.ascontiguousarray(skimage.data.astronaut())


@functools.cache
def _person_alpha() -> npt.NDArray[np.float32]:
    """Where the astronaut is in her picture, float32 [512, 512] in 0..1: GrabCut from a rough sketch of her."""
    picture = face_picture()
    sketch = np.full(picture.shape[:2], cv2.GC_PR_BGD, np.uint8)
    cv2.ellipse(sketch, (226, 100), (78, 95), 0, 0, 360, cv2.GC_PR_FGD, -1)
    sketch[260:, 20:365] = cv2.GC_PR_FGD
    cv2.ellipse(sketch, (224, 100), (44, 62), 0, 0, 360, cv2.GC_FGD, -1)
    cv2.ellipse(sketch, (210, 232), (85, 58), 0, 0, 360, cv2.GC_FGD, -1)
    sketch[280:, 80:280] = cv2.GC_FGD
    sketch[300:, 280:345] = cv2.GC_FGD
    sketch[:14] = sketch[:200, :110] = sketch[:200, 320:] = sketch[:, 366:] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(picture, sketch, None, np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    inside = np.isin(sketch, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(inside)
    inside = labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])
    return cv2.GaussianBlur(cv2.erode(inside.astype(np.float32), np.ones((3, 3))), (5, 5), 0)


@dataclass(frozen=True)
class Pose:
    """Where one face is in one frame."""

    x: float
    y: float
    scale: float
    angle_rad: float
    mirrored: bool
    hue: int

    def matrix(self) -> npt.NDArray[np.float64]:
        """[2, 3], from px of the astronaut's picture to px of the upright frame."""
        cos, sin = self.scale * math.cos(self.angle_rad), self.scale * math.sin(self.angle_rad)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if self.mirrored else 1.0, 1.0])
        return np.column_stack([linear, np.array([self.x, self.y]) - linear @ FACE_CENTRE])

    def box(self) -> tuple[float, float, float, float]:
        """The face, x0 y0 x1 y1 in px of the upright frame."""
        half_w, half_h = 0.4 * FACE_HEIGHT_PX * self.scale, 0.5 * FACE_HEIGHT_PX * self.scale
        return self.x - half_w, self.y - half_h, self.x + half_w, self.y + half_h


@dataclass(frozen=True)
class Scene:
    """What a clip shows.

    Attributes:
        width: px, upright.
        height: px, upright.
        people: for each person the seconds from and to which they are visible.
        face_px: smallest and largest height of a face.
        seed: of background and motion.
    """

    width: int
    height: int
    people: tuple[tuple[float, float], ...]
    face_px: tuple[float, float]
    seed: int

    def poses(self, t_s: float) -> list[Pose | None]:
        """The pose of each person; None if not visible."""
        return [self._pose(n, t_s) if start <= t_s < end else None for n, (start, end) in enumerate(self.people)]

    def _pose(self, n: int, t_s: float) -> Pose:
        phase, pace = np.random.default_rng((self.seed, n)).uniform((0, 0.6), (2 * math.pi, 1.0))
        share = self.width / len(self.people)
        small, large = self.face_px
        height = small + (large - small) * (0.5 + 0.5 * math.sin(0.7 * pace * t_s + phase))
        return Pose(
            x=share * (n + 0.5) + 0.12 * share * math.sin(pace * t_s + phase),
            y=self.height * (0.42 + 0.04 * math.sin(1.3 * pace * t_s + 2 * phase)),
            scale=height / FACE_HEIGHT_PX,
            angle_rad=0.06 * math.sin(0.9 * pace * t_s + phase),
            mirrored=n % 2 == 1,
            hue=(0, 97, 62, 140, 20)[n % 5],
        )

    @functools.cached_property
    def background(self) -> Picture:
        """uint8 [height, width, 3]: a panelled wall in soft light with fine grain; no detector finds a face in it."""
        rng = np.random.default_rng(self.seed)
        across, down = np.linspace(0, 1, self.width)[None, :, None], np.linspace(0, 1, self.height)[:, None, None]
        corners = rng.uniform(90, 170, (2, 2, 1)) + rng.normal(0, 12, (2, 2, 3))
        top = corners[0, 0] * (1 - across) + corners[0, 1] * across
        bottom = corners[1, 0] * (1 - across) + corners[1, 1] * across
        panels = 6 * np.sign(np.sin(np.arange(self.width) / self.width * 14 * math.pi))[None, :, None]
        grain = cv2.GaussianBlur(rng.normal(0, 9, (self.height, self.width)), (3, 3), 0)[..., None]
        return np.clip(top * (1 - down) + bottom * down + panels + grain, 0, 255).astype(np.uint8)

    def render(self, t_s: float) -> Picture:
        """uint8 [height, width, 3], RGB, upright."""
        image = self.background.copy()
        for pose in filter(None, self.poses(t_s)):
            _blend(image, _dressed(pose.hue), _person_alpha(), pose.matrix())
        return image


@functools.cache
def _dressed(hue: int) -> Picture:
    """The astronaut in clothes of another colour, `hue` half degrees on from orange."""
    hsv = cv2.cvtColor(face_picture(), cv2.COLOR_RGB2HSV)
    hsv[195:, :, 0] = (hsv[195:, :, 0].astype(int) + hue) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _blend(image: Picture, patch: Picture, alpha: npt.NDArray[np.float32], matrix: npt.NDArray[np.float64]) -> None:
    """Blend `patch` over `image` with weight `alpha`, both moved by `matrix` [2, 3]."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0, 1), (512, 0, 1), (0, 512, 1), (512, 512, 1)]) @ matrix.T
    x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    shifted = matrix - [[0, 0, x0], [0, 0, y0]]
    size = (int(x1 - x0), int(y1 - y0))
    over = cv2.warpAffine(patch, shifted, size, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(alpha, shifted, size)
    image[y0:y1, x0:x1] = cv2.blendLinear(over, image[y0:y1, x0:x1], weight, 1 - weight)


@contextmanager
def _unchanged_scheduling() -> Iterator[None]:
    """As root, SVT-AV1 (4.1) gives its caller the highest real-time priority, which all its later processes inherit."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before, param = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before:
            os.sched_setscheduler(0, before, param)


def encode(
    path: Path,
    frames: Iterable[tuple[float, Picture]],
    *,
    fps: int = 25,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    matrix: Matrix | None = None,
    full_range: bool = False,
    display: tuple[int, int, int, int] = (1, 0, 0, 1),
    options: dict[str, str] | None = None,
    comment: str = "",
    audio: bool = False,
) -> None:
    """Write frames (seconds, uint8 [H, W, 3] RGB as stored) to a container that the suffix names.

    Args:
        path: file to write.
        frames: with increasing times, all of one size.
        fps: nominal; times may deviate from it.
        codec: an encoder of libav; None is H.264 if libx264 exists, else MPEG-4.
        pix_fmt: stored pixel format.
        matrix: of YUV, tagged in the stream; None takes the usual one for the size and leaves the stream untagged.
        full_range: 0..255 instead of 16..235.
        display: a, b, c, d of the display matrix: a stored point (x, y) is shown at (a x + c y, b x + d y).
        options: of the encoder.
        comment: metadata.
        audio: adds a tone.
    """
    codec = codec or ("libx264" if "libx264" in codecs_available else "mpeg4")
    defaults = {"crf": "18", "preset": "veryfast"} if codec in ("libx264", "libx265") else {}
    colour_range = ColorRange.JPEG if full_range else ColorRange.MPEG
    # MPEG-4 supports nothing finer; AVI and MPEG-2 store a frame number instead of a time.
    time_base = Fraction(1, fps if path.suffix == ".avi" or codec == "mpeg2video" else 60_000)
    with _unchanged_scheduling(), av.open(str(path), "w") as container:
        container.metadata["comment"] = comment
        stream = container.add_stream(codec, rate=fps, options={**defaults, **(options or {})})
        sound = container.add_stream("aac", rate=16_000, layout="mono") if audio else None
        context = stream.codec_context
        context.time_base = time_base
        for t_s, image in frames:
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            if not context.is_open:
                context.height, context.width = image.shape[:2]
                context.pix_fmt, context.gop_size = pix_fmt, fps
                if matrix:
                    context.colorspace = _TAGS[matrix]
                    context.color_range = colour_range
                if display != (1, 0, 0, 1):
                    a, b, c, d = (65536 * value for value in display)
                    stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
            colorspace = _MATRICES[matrix or _usual_matrix(frame)]
            frame = frame.reformat(
                format=pix_fmt,
                src_colorspace=colorspace,
                dst_colorspace=colorspace,
                src_color_range=ColorRange.JPEG,
                dst_color_range=colour_range,
                interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
            )
            frame.pts, frame.time_base = round(t_s / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for packet in _tone(sound, seconds=t_s):
                container.mux(packet)


def _usual_matrix(frame: av.VideoFrame) -> Matrix:
    return "bt709" if max(frame.width, frame.height) >= 1280 else "bt601"


def tone(path: Path, *, seconds: float) -> None:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as container:
        for packet in _tone(container.add_stream("aac", rate=16_000, layout="mono"), seconds):
            container.mux(packet)


def _tone(stream: Any, seconds: float) -> Iterator[Any]:
    wave_s = np.arange(round(16_000 * seconds)) / 16_000
    samples = (8000 * np.sin(2 * np.pi * 440 * wave_s)).astype(np.int16)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
        yield from stream.encode(frame)
    yield from stream.encode(None)


def make_clip(
    path: Path,
    *,
    seconds: float = 4.0,
    fps: int = 25,
    size: tuple[int, int] = (640, 360),
    faces: int | Sequence[tuple[float, float]] = 1,
    face_px: tuple[float, float] = (100, 125),
    rotation: Literal[0, 90, 180, 270] = 0,
    vfr: bool = False,
    blanks: Sequence[tuple[float, float]] = (),
    seed: int = 0,
    **encoding: Any,
) -> Scene:
    """Write a clip of people who move smoothly.

    Args:
        path: file to write; the suffix names the container.
        seconds: duration.
        fps: frames a second.
        size: width and height in px, upright.
        faces: number of people, or for each the seconds from and to which they are visible.
        face_px: smallest and largest height of a face.
        rotation: clockwise degrees by which a player must turn the stored picture; the display matrix says so.
        vfr: every third frame is dropped, and every seventh is late.
        blanks: seconds from and to which the picture is black.
        seed: of background and motion.
        encoding: further arguments of `encode`.

    Returns:
        the scene, which gives the position of each face at any time.
    """
    people = ((0.0, math.inf),) * faces if isinstance(faces, int) else tuple(faces)
    scene = Scene(*size, people=people, face_px=face_px, seed=seed)
    numbers = [n for n in range(round(seconds * fps)) if not (vfr and n % 3 == 2)]
    times = [(n + (0.4 if vfr and n % 7 == 3 else 0.0)) / fps for n in numbers]

    def frames() -> Iterator[tuple[float, Picture]]:
        for t_s in times:
            blank = any(start <= t_s < end for start, end in blanks)
            image = np.zeros_like(scene.background) if blank else scene.render(t_s)
            yield t_s, np.ascontiguousarray(np.rot90(image, rotation // 90))

    turns: dict[int, tuple[int, int, int, int]] = {
        0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)
    }  # fmt: skip
    encode(path, frames(), fps=fps, display=turns[rotation], comment=json.dumps(asdict(scene)), **encoding)
    return scene


def scene_of(path: Path) -> Scene:
    """The scene of a clip that `make_clip` wrote."""
    with av.open(str(path)) as container:
        fields = json.loads(container.metadata["comment"])
    people = tuple(tuple(span) for span in fields.pop("people"))
    return Scene(**{**fields, "people": people, "face_px": tuple(fields["face_px"])})


def make_fake(source: Path, out: Path) -> None:
    """Write the clip again with an altered face blended over every face.

    As in self-blended images (Shiohara and Yamasaki, CVPR 2022): the other face is the same one, mirrored, in another
    colour, slightly softer and shifted, inside a soft mask from brow to chin.
    """
    scene = scene_of(source)
    face = cv2.GaussianBlur(face_picture()[:, ::-1], (0, 0), 0.8).astype(np.float32)
    face = np.clip(face * (1.06, 0.97, 0.9) + (4, 0, -4), 0, 255).astype(np.uint8)
    # Mirrored about the middle of the picture; moved back over the face, slightly enlarged.
    x, y = FACE_CENTRE
    centred = np.array([[1.04, 0.03, x - 1.04 * (511 - x) - 0.03 * y], [-0.02, 1.03, y + 0.02 * (511 - x) - 1.03 * y]])
    face = cv2.warpAffine(face, centred, (512, 512), borderMode=cv2.BORDER_REFLECT)
    mask = np.zeros((512, 512), np.float32)
    cv2.ellipse(mask, (round(x), round(y)), (38, 50), 0, 0, 360, 0.9, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 7)

    def frames() -> Iterator[tuple[float, Picture]]:
        with av.open(str(source)) as container:
            for frame in container.decode(video=0):
                colorspace = _MATRICES[_usual_matrix(frame)]
                image = frame.to_ndarray(format="rgb24", src_colorspace=colorspace, dst_colorspace=colorspace)
                if image.any():
                    for pose in filter(None, scene.poses(frame.time)):
                        _blend(image, face, mask, pose.matrix())
                yield frame.time, image

    encode(out, frames(), comment="made fake: every face is a blend", options={"crf": "23"})


def turn_clip(source: Path, out: Path, turn: int) -> Path:
    """The same frames, turned clockwise by 90, 180 or 270 degrees, without a word about it in the file."""
    codes = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    with av.open(str(source)) as container:
        frames = [
            (frame.time, np.asarray(cv2.rotate(frame.to_ndarray(format="rgb24"), codes[turn]), np.uint8))
            for frame in container.decode(video=0)
        ]
    encode(out, frames)
    return out


def as_of_old_x264(source: Path, out: Path) -> None:
    """Copy an H.264 clip, with the note that x264 build 142 made it in place of the real build.

    Builds before 151 coded 4:4:4 pictures in another way than the standard, and libav goes by that note alone: it
    decodes such a clip of a later build to broken pictures, wherever it knows the note.
    """
    edited, count = re.subn(rb"x264 - core \d{3} ", b"x264 - core 142 ", source.read_bytes())
    if count != 1:
        raise ValueError(f"{source}: x264's note is there {count} times")
    out.write_bytes(edited)


def make_long_clip(path: Path, *, minutes: float, size: tuple[int, int] = (1280, 720), fps: int = 30) -> None:
    """Write a long clip quickly: ten encoded seconds whose packets are repeated without encoding again."""
    loop_s = 10
    short = path.with_name(f"{path.stem}.loop{path.suffix}")
    make_clip(short, seconds=loop_s, fps=fps, size=size, face_px=(0.2 * size[1], 0.25 * size[1]))
    with av.open(str(short)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [(bytes(packet), packet) for packet in source.demux(stream) if packet.dts is not None]
        span = round(loop_s / stream.time_base)
        for turn in range(math.ceil(minutes * 60 / loop_s)):
            for data, packet in packets:
                repeat = av.Packet(data)
                repeat.pts, repeat.dts = packet.pts + turn * span, packet.dts + turn * span
                repeat.duration, repeat.time_base = packet.duration, stream.time_base
                repeat.is_keyframe, repeat.stream = packet.is_keyframe, copy
                target.mux(repeat)
    short.unlink()


def huge_picture(path: Path, side_px: int = 16_384) -> None:
    """Write a PNG of a few kB with `side_px` squared pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = side_px.to_bytes(4, "big") * 2 + bytes((1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((side_px // 8 + 1) * side_px), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def tiled_picture(path: Path, image: Picture, tiles: int = 2, turn: int = 0) -> None:
    """Write a picture as a grid of `tiles` x `tiles` pictures, as phones do (ISO/IEC 23008-12).

    Args:
        path: .avif or .heic.
        image: uint8 [S, S, 3], S a multiple of `tiles`.
        tiles: in a row.
        turn: degrees counter-clockwise by which a viewer must turn it (irot).
    """
    size = image.shape[0] // tiles
    heic = path.suffix == ".heic"
    code, configuration = (b"hvc1", b"hvcC") if heic else (b"av01", b"av1C")
    coded, config = [], b""
    for row, column in itertools.product(range(tiles), range(tiles)):
        part = image[row * size : (row + 1) * size, column * size : (column + 1) * size]
        buffer = io.BytesIO()
        if heic:
            pillow_heif.from_pillow(PIL.Image.fromarray(part)).save(buffer, quality=90)
        else:
            PIL.Image.fromarray(part).save(buffer, "AVIF", quality=90)
        single = buffer.getvalue()
        at = single.index(configuration) - 4
        config = single[at : at + int.from_bytes(single[at : at + 4], "big")]
        coded.append(single[single.index(b"mdat") + 4 :])

    def box(kind: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return (8 + len(body)).to_bytes(4, "big") + kind + body

    def n(value: int, size: int = 2) -> bytes:
        return value.to_bytes(size, "big")

    items = range(2, 2 + tiles * tiles)
    grid = bytes((0, 0, tiles - 1, tiles - 1)) + n(tiles * size) * 2
    infos = [box(b"infe", n(2, 1), n(0, 3), n(item), n(0), kind, b"\0") for item, kind in
             ((1, b"grid"), *((item, code) for item in items))]  # fmt: skip
    sizes = [box(b"ispe", n(0, 4), n(side, 4) * 2) for side in (tiles * size, size)]
    rotation = box(b"irot", n(turn // 90, 1))
    links = [n(1) + bytes((2, 1, 0x84)), *(n(item) + bytes((2, 2, 0x83)) for item in items)]

    def meta(data_at: int) -> bytes:
        # Offsets and lengths of four bytes; the grid is in idat (method 1), the tiles in mdat.
        places = [n(1), n(1), n(0), n(1), n(0, 4), n(len(grid), 4)]
        for item, part in zip(items, coded, strict=True):
            places += [n(item), n(0), n(0), n(1), n(data_at, 4), n(len(part), 4)]
            data_at += len(part)
        return box(
            b"meta", n(0, 4),
            box(b"hdlr", n(0, 8), b"pict", bytes(13)),
            box(b"pitm", n(0, 4), n(1)),
            box(b"iloc", n(1, 1), n(0, 3), bytes((0x44, 0)), n(1 + len(items)), *places),
            box(b"iinf", n(0, 4), n(len(infos)), *infos),
            box(b"iref", n(0, 4), box(b"dimg", n(1), n(len(items)), *(n(item) for item in items))),
            box(b"iprp", box(b"ipco", *sizes, config, rotation), box(b"ipma", n(0, 4), n(len(links), 4), *links)),
            box(b"idat", grid),
        )  # fmt: skip

    head = box(b"ftyp", b"heic" if heic else b"avif", n(0, 4), b"heicmif1" if heic else b"avifmif1miaf")
    path.write_bytes(head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *coded))


def broken_inputs(folder: Path) -> dict[str, Path]:
    """Ten inputs that a pipeline must survive, by their defect. The last one does not exist."""
    good = folder / "good.mp4"
    make_clip(good, seconds=1)
    whole = good.read_bytes()
    rng = np.random.default_rng(0)
    inputs = {
        "empty": folder / "empty.mp4",
        "truncated": folder / "truncated.mp4",
        "random": folder / "random.mp4",
        "text": folder / "text.mp4",
        "audio only": folder / "audio_only.mp4",
        "one pixel": folder / "one_pixel.png",
        "huge": folder / "huge.png",
        "wrong extension": folder / "wrong_extension.txt",
        "folder": folder / "x.mp4",
        "missing": folder / "missing.mp4",
    }
    inputs["empty"].touch()
    inputs["truncated"].write_bytes(whole[: len(whole) // 2])
    inputs["random"].write_bytes(rng.bytes(100_000))
    inputs["text"].write_text("This is no video.\n" * 500)
    tone(inputs["audio only"], seconds=2)
    cv2.imwrite(str(inputs["one pixel"]), np.full((1, 1, 3), 128, np.uint8))
    huge_picture(inputs["huge"])
    good.rename(inputs["wrong extension"])
    inputs["folder"].mkdir()
    return inputs


def main() -> None:
    """Write the clips of the demo."""
    parser = argparse.ArgumentParser(description="Make original.mp4 and fake.mp4 for the demo.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    make_clip(
        folder / "original.mp4",
        seconds=7, size=(1280, 720), faces=((0, math.inf), (3, 5.5)), face_px=(170, 210), audio=True,
    )  # fmt: skip
    make_fake(folder / "original.mp4", folder / "fake.mp4")


if __name__ == "__main__":
    main()
