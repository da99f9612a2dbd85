"""What commands share that judge many clips on this machine: exit codes, interrupts, a scanner from options."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from models.errors import UnmaskError
from pipeline.contracts import Outcome
from pipeline.manifests.reader import CredentialsReader
from pipeline.scanner_options import ScannerOptions
from pipeline.settings import Settings
from pipeline.sources import Source, SourceLimits
from pipeline.video.sampling import Adaptive

if TYPE_CHECKING:
    from pipeline.scan import Scanner

EXIT_ALL_SCORED = 0
EXIT_NOT_WRITTEN = 1
EXIT_BAD_INPUT = 2
EXIT_SOME_OUTCOME = 3
EXIT_INTERRUPTED = 130
# Outcomes that may be transient: another try is worth it.
RETRIED = frozenset({Outcome.UNAVAILABLE, Outcome.MODEL_ERROR, Outcome.SHED})


class BadOptionError(UnmaskError):
    """An option is invalid; the message says why and what is available."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM, as from a shell's `timeout` or a service manager, interrupts a scan like Ctrl-C: outputs are written."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def started_scanner(
    options: ScannerOptions,
    settings: Settings,
    *,
    architecture: str | None = None,
    weights: str | Path | None = None,
    untrained: bool = False,
    quiet_s: float = 0.0,
    portraits: bool = False,
    progress: Callable[[Source, float | None, int], None] | None = None,
    credentials: CredentialsReader | None = None,
) -> Iterator[Scanner]:
    """A scanner for many clips, closed at the end of the block.

    Args:
        options: how clips are read and scored.
        settings: limits on what is read, and the least coverage.
        architecture: see `pipeline.detectors.load`, as `weights` and `untrained`.
        quiet_s: wait until a file has not changed for this long.
        portraits: keep a picture of each person for the report.
        progress: called after each frame.
        credentials: reads the Content Credentials of each file; None: nobody looks.

    Raises:
        BadOptionError: there is no such detector, backend or device, a library is missing, or adaptive sampling needs
            thresholds that the weights do not have.
    """
    from pipeline.video.sandbox import DecodeServer

    with ExitStack() as stack:
        # It imports the decoders in its own process, while this one imports the rest.
        server = stack.enter_context(DecodeServer())
        server.start()

        from pipeline import assembly
        from pipeline.detectors import load_all

        try:
            detectors = load_all(architecture=architecture, weights=weights, untrained=untrained)
            scanner = stack.enter_context(
                assembly.scanner(
                    detectors,
                    options,
                    source_limits=replace(SourceLimits.of(settings), quiet_s=quiet_s),
                    min_coverage=settings.min_coverage,
                    portraits=portraits,
                    progress=progress,
                    server=server,
                    credentials=credentials,
                )
            )
        except (UnmaskError, ValueError) as error:
            raise BadOptionError(str(error)) from error
        except ImportError as error:
            raise BadOptionError(f"a library cannot be loaded: {error}") from error
        if isinstance(options.sampling, Adaptive) and scanner.thresholds is None:
            raise BadOptionError(
                "--adaptive needs weights with thresholds, which say when a verdict is settled; "
                f"{scanner.provenance.model} has none: unmask calibrate finds them"
            )
        yield scanner
