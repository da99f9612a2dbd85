"""How many requests each key may make: a bucket of tokens for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from web.problems import Code, ProblemError

# Seconds of requests that may come at once.
_BURST_S: Final = 4.0
_MAX_KEYS: Final = 10_000


class Rates:
    """The buckets. Safe to share between threads.

    Args:
        requests_s: a second, on average.
        clock: seconds.
    """

    def __init__(self, requests_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._requests_s = requests_s
        self._full = max(1.0, requests_s * _BURST_S)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def check(self, key_id: str) -> None:
        """Count a request.

        Raises:
            ProblemError: it is one too many; it says when the next one is accepted.
        """
        now_s = self._clock()
        with self._lock:
            if len(self._buckets) >= _MAX_KEYS:
                self._buckets.clear()
            tokens, then_s = self._buckets.get(key_id, (self._full, now_s))
            tokens = min(self._full, tokens + (now_s - then_s) * self._requests_s)
            if tokens < 1:
                self._buckets[key_id] = (tokens, now_s)
                wait_s = (1 - tokens) / self._requests_s
                raise ProblemError(
                    429,
                    Code.RATE,
                    f"more than {self._requests_s:g} requests a second",
                    {"Retry-After": str(max(1, round(wait_s + 0.5)))},
                )
            self._buckets[key_id] = (tokens - 1, now_s)
