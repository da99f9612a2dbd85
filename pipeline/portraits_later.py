"""Pictures of the people of a judged clip, cut from its file: for verdicts that came without them, as workers' do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.contracts import Outcome, ScoredFace, Verdict
from pipeline.faces.boxes import grown, squares
from pipeline.faces.pyramid import Pyramid
from pipeline.faces.turns import turned
from pipeline.frames_again import frames_at
from pipeline.portraits import PORTRAIT_PX, Portrait, PortraitPicker, encode_portrait
from pipeline.sources import Opened, ScanInterruptedError, SourceError
from pipeline.types import Image
from pipeline.video.sandbox import DecodeServer, Limits

# Side of a picture over that of the face's box: some of its surroundings.
_MARGIN: Final = 1.2


def portraits_of(
    verdict: Verdict,
    opened: Opened,
    server: DecodeServer,
    *,
    limits: Limits | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[tuple[Portrait, ...], tuple[Portrait, ...]]:
    """The portraits that a scan would have kept, without their places; those of frames that are not found are missing.

    Args:
        verdict: of the clip.
        opened: the clip.
        server: decodes it.
        limits: of the decoder; the defaults if not given.
        stop: asked at each frame, whether to end.

    Returns:
        The most suspicious ones and the clearest ones, as `PortraitPicker` has them.

    Raises:
        SourceError: it is another file than the one that was judged.
        DecodeError: it cannot be decoded.
        ScanInterruptedError: `stop` said so.
    """
    if verdict.provenance.source_sha256 not in (None, opened.sha256):
        raise SourceError(Outcome.UNAVAILABLE, "the file has changed since it was judged")
    picker = PortraitPicker()
    for face in verdict.frames:
        picker.consider(Portrait(face.track, face.t_s, face.probability, face.quality, b""))
    shown = {(portrait.track, portrait.t_s) for portrait in (*picker.suspicious, *picker.clearest)}
    streams: dict[int, dict[float, list[ScoredFace]]] = defaultdict(lambda: defaultdict(list))
    for face in verdict.frames:
        if (face.track, face.t_s) in shown:
            streams[face.stream][face.t_s].append(face)
    jpegs: dict[tuple[int, float], bytes] = {}
    for stream, moments in streams.items():
        for t_s, frame in frames_at(moments, opened, server, verdict.id, limits=limits, stream=stream):
            if stop():
                raise ScanInterruptedError
            jpegs |= {(face.track, t_s): _picture(frame.image, face) for face in moments[t_s]}
    suspicious, clearest = (
        tuple(replace(each, jpeg=jpegs[each.track, each.t_s]) for each in found if (each.track, each.t_s) in jpegs)
        for found in (picker.suspicious, picker.clearest)
    )
    return suspicious, clearest


def _picture(image: Image, face: ScoredFace) -> bytes:
    square = grown(squares(np.array([face.box], np.float32)), _MARGIN)
    (pixels,) = Pyramid.around(image, square[0]).patches(square, PORTRAIT_PX)
    return encode_portrait(turned(pixels, -face.roll % 360))
