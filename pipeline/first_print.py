"""The print of a clip before anything else is done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.known.prints import ClipPrint, PrintMaker
from pipeline.sources import ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.video.sampling import Fps
from pipeline.video.sandbox import DecodeError, DecodeServer, Limits

_SAMPLING: Final = Fps(1.0)


def print_of(
    source: Source,
    server: DecodeServer,
    *,
    limits: Limits | None = None,
    source_limits: SourceLimits | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> ClipPrint:
    """Decode a clip for its print alone. Of a clip that cannot be read, the print is of what could be.

    Args:
        source: the clip.
        server: decodes it.
        limits: of the decoder; the defaults if not given.
        source_limits: how much is read.
        stop: asked at each frame, whether to end.

    Raises:
        ScanInterruptedError: `stop` said so.
    """
    maker = PrintMaker()
    try:
        with (
            open_source(source, source_limits or SourceLimits(), stop=stop) as opened,
            server.open(opened.fd, source.id, _SAMPLING, limits) as reader,
        ):
            for frame in reader:
                if stop():
                    raise ScanInterruptedError
                maker.add(frame)
    except (SourceError, DecodeError):
        pass  # scanning the clip reports it
    return maker.made()
