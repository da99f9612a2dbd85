"""Scores of many crops with one backend."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from pipeline.scoring.backend import Backend, BackendError
from pipeline.types import Floats, Image


def infer(backend: Backend, pixels: Image) -> Floats:
    """Log-odds of fake of crops uint8 [N, S, S, 3], float32 [N], with as many concurrent calls as the backend takes.

    Raises:
        BackendError: a call failed.
    """
    logits = np.full(len(pixels), np.nan, np.float32)
    errors: list[Exception] = []
    slots = threading.Semaphore(backend.concurrency)

    def put(part: slice) -> Callable[[Floats | Exception], None]:
        def done(result: Floats | Exception) -> None:
            if isinstance(result, Exception):
                errors.append(result)
            else:
                logits[part] = result
            slots.release()

        return done

    start = 0
    while start < len(pixels) and not errors:
        stop = start + backend.fit(min(len(pixels) - start, backend.max_batch))
        slots.acquire()
        # On this thread, not one of a pool: compiled CUDA graphs belong to the thread that recorded them.
        backend.start(pixels[start:stop], put(slice(start, stop)))
        start = stop
    for _ in range(backend.concurrency):
        slots.acquire()
    if errors:
        raise BackendError(f"{backend.name} failed: {type(errors[0]).__name__}: {errors[0]}") from errors[0]
    return logits
