"""Reads a whole clip through the public API, and remuxes a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from pipeline.types import Image
from pipeline.video.sampling import Every, Sampling
from pipeline.video.sandbox import ClipInfo, DecodeServer, Limits


@dataclass(frozen=True)
class Read:
    info: ClipInfo
    indices: list[int]
    times_s: list[float]
    images: list[Image]


def read(
    server: DecodeServer, source: Path | int, sampling: Sampling | None = None, limits: Limits | None = None
) -> Read:
    """All frames of the clip, copied, and its info at the end."""
    with server.open(source, "clip", sampling or Every(1), limits) as clip:
        frames = [(frame.index, frame.t_s, frame.image.copy()) for frame in clip]
    return Read(clip.info, *(list(column) for column in zip(*frames, strict=True)) if frames else ([], [], []))


def remux(source: Path, target: Path, take: slice = slice(None), options: dict[str, str] | None = None) -> None:
    """The packets of the video stream in another container, or some of them."""
    with av.open(str(source)) as a, av.open(str(target), "w", options=options or {}) as b:
        stream = a.streams.video[0]
        copy = b.add_stream_from_template(stream, opaque=True)
        for packet in [p for p in a.demux(stream) if p.size][take]:
            packet.stream = copy
            b.mux(packet)
