"""Many clips on the threads of one scanner."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

from pipeline.clip_report import ClipReport
from pipeline.scan import Scanner
from pipeline.sources import Source
from pipeline.video.window import Window


def scan_all(
    scanner: Scanner,
    sources: Iterable[Source],
    *,
    workers: int,
    done: Callable[[Source, str | None], bool] | None = None,
    part: Window | None = None,
) -> Generator[tuple[Source, ClipReport | None]]:
    """Judge clips on `workers` threads; yields them as they are done.

    Closing the iterator, or an interrupt while it waits, sets `scanner.stopping`: the clips that are under way end
    without a verdict, and the scanner has done its work.

    Args:
        workers: clips at once.
        done: given a clip and the sha256 of its bytes, whether its verdict exists already (then None is yielded).
        part: only this part of each clip is judged.
    """
    todo = iter(sources)
    running: dict[Future[ClipReport | None], Source] = {}
    with ThreadPoolExecutor(workers, thread_name_prefix="clip") as pool:
        try:
            while True:
                while len(running) < workers and (source := next(todo, None)) is not None:
                    check = None if done is None else partial(done, source)
                    running[pool.submit(scanner.scan, source, done=check, part=part)] = source
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    source = running.pop(future)
                    yield source, future.result()
        except BaseException:
            # Interrupted or closed: the threads end at their next frame, and the pool waits for them.
            scanner.stopping.set()
            raise
