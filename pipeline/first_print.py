"""The print of a clip before anything else is done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.known.prints import ClipPrint, PrintMaker
from pipeline.sources import Opened, ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeError, DecodeServer, Limits
from pipeline.video.window import Window

_SAMPLING: Final = Fps(1.0)


def print_of(
    source: Source,
    server: DecodeServer,
    *,
    limits: Limits | None = None,
    source_limits: SourceLimits | None = None,
    part: Window | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ClipPrint:
    """Decode a clip for its print alone. Of a clip that cannot be read, the print is of what could be.

    Args:
        source: the clip.
        server: decodes it.
        limits: of the decoder; the defaults if not given.
        source_limits: how much is read.
        part: of the clip that the print is of; None: all of it.
        stop: asked at each frame, whether to end.

    Raises:
        ScanInterruptedError: `stop` said so.
    """
    try:
        with open_source(source, source_limits or SourceLimits(), stop=stop) as opened:
            return print_of_opened(opened, source.id, server, limits=limits, part=part, stop=stop)
    except SourceError:
        return PrintMaker().made()  # scanning the clip reports it


def print_of_opened(
    opened: Opened,
    clip_id: str,
    server: DecodeServer,
    *,
    limits: Limits | None = None,
    part: Window | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ClipPrint:
    """As `print_of`, of a clip that is open already."""
    maker = PrintMaker()
    try:
        with server.open(opened.fd, clip_id, _SAMPLING, limits, part) as reader:
            for frame in reader:
                if stop():
                    raise ScanInterruptedError
                maker.add(frame)
    except DecodeError:
        pass  # scanning the clip reports it
    return maker.made()
