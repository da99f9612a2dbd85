"""What workers' records do not have: pictures, prints and Content Credentials, all from the uploaded files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace

import structlog

from pipeline.clip_report import ClipReport
from pipeline.first_print import print_of_opened
from pipeline.manifests.reader import CredentialsReader
from pipeline.portraits_later import portraits_of
from pipeline.sources import Opened, ScanInterruptedError, Source, SourceError, SourceLimits, open_source
from pipeline.video.clip import DecodeError
from pipeline.video.sandbox import DecodeServer
from web.judges import step_back
from web.known import Known
from web.media import Media, StoreAwayError
from web.problems import ProblemError
from web.tasks import Tasks
from web.videos import Video, Videos

log = structlog.get_logger(__name__)


class Pictures:
    """Used by one thread, which closes it.

    Args:
        tasks: say which videos have none.
        videos: get the pictures.
        media: their files.
        known: gets the prints.
        credentials: reads what the files' makers say.
        limits: how much is read.
    """

    def __init__(
        self,
        tasks: Tasks,
        videos: Videos,
        media: Media,
        known: Known,
        credentials: CredentialsReader,
        limits: SourceLimits,
    ) -> None:
        self._tasks, self._videos, self._media, self._known = tasks, videos, media, known
        self._credentials, self._limits = credentials, limits
        self._stack = ExitStack()
        self._server: DecodeServer | None = None

    def close(self) -> None:
        """End the decoders."""
        self._stack.close()

    def step(self, stop: Callable[[], bool]) -> bool:
        """Look at the video that was judged last; False: all have been looked at.

        Args:
            stop: asked at each frame, whether to end.

        Raises:
            ScanInterruptedError: the service ends.
            StoreAwayError: its file cannot be read now.
        """
        id_ = self._tasks.without_pictures()
        if id_ is None:
            return False
        if self._tasks.begin_pictures(id_) == 0:
            log.warning("the service ended while it made the pictures of a video: the last try", video=id_)
        try:
            with suppress(ProblemError):  # it was deleted meanwhile
                self._look_at(self._videos.get(id_), stop)
        except (ScanInterruptedError, StoreAwayError):
            self._tasks.interrupt_pictures(id_)
            raise
        self._tasks.end_pictures(id_)
        return True

    def _look_at(self, video: Video, stop: Callable[[], bool]) -> None:
        report = self._videos.report(video)
        if report is None:
            return
        with self._media.local(video.id, stop) as path:
            source = Source(str(path), given_id=video.id, is_path=True)
            try:
                with open_source(source, self._limits, stop=stop) as opened:
                    report = self._completed(report, video, opened, stop)
            except (SourceError, DecodeError) as error:
                log.warning("no pictures of a judged video", video=video.id, error=str(error))
                return
        self._videos.complete(video.id, report)

    def _completed(self, report: ClipReport, video: Video, opened: Opened, stop: Callable[[], bool]) -> ClipReport:
        server = self._decoders()
        suspicious, clearest = portraits_of(report.verdict, opened, server, stop=stop)
        self._known.keep(video.id, print_of_opened(opened, video.id, server, part=video.upload.part, stop=stop))
        credentials = self._credentials.read(opened.fd, stop)
        return replace(report, suspicious=suspicious, clearest=clearest, credentials=credentials)

    def _decoders(self) -> DecodeServer:
        if self._server is None:
            step_back()
            self._server = self._stack.enter_context(DecodeServer())
        return self._server
