"""What becomes of videos that are judged again: a run keeps their verdicts, a check only compares them."""

from __future__ import annotations

import threading
from collections import Counter

from pipeline.contracts import Verdict
from pipeline.results.replay import difference
from web.rescore_keys import RescoredKeys
from web.rescore_runs import Runs
from web.rescores import LeftOut, Run
from web.videos import Video


class RunSink:
    """Keeps verdicts in a run. See `web.rescoring.Sink`.

    Args:
        runs: of the database.
        run: it.
        keys: keeps them in Redis, too; None: nowhere else.
    """

    def __init__(self, runs: Runs, run: Run, keys: RescoredKeys | None) -> None:
        self._runs, self._run, self._keys = runs, run, keys

    def begin(self, video: Video) -> int:
        """Count the try before it is made."""
        return self._runs.attempt(self._run, video)

    def release(self, video: Video) -> None:
        """Take it back."""
        self._runs.release(self._run, video)

    def take(self, video: Video, before: Verdict, after: Verdict) -> None:
        """Keep a verdict, unless its video was deleted meanwhile."""
        is_replay = before.provenance.weights_sha256 == after.provenance.weights_sha256
        replayed = (difference(before, after) or "") if is_replay else None
        self._runs.finish(self._run, video, before, after, replayed, in_redis=self._keys is not None)
        if self._keys is not None:
            self._keys.publish_one(self._run, video.n)

    def leave_out(self, video: Video, reason: LeftOut) -> None:
        """Keep the reason."""
        self._runs.leave_out(self._run, video, reason)


class CheckSink:
    """Compares records, and keeps nothing. See `web.rescoring.Sink`.

    Attributes:
        compared: videos.
        differences: of those whose records differ, the first field that does, by the id of the video.
        left_out: how many could not be judged again, by the reason.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.differences: dict[str, str] = {}
        self.left_out: Counter[LeftOut] = Counter()
        self._lock = threading.Lock()

    def begin(self, video: Video) -> int:
        """Nothing is counted."""
        return 0

    def release(self, video: Video) -> None:
        """Likewise."""

    def take(self, video: Video, before: Verdict, after: Verdict) -> None:
        """Compare two records."""
        found = difference(before, after)
        with self._lock:
            self.compared += 1
            if found is not None:
                self.differences[video.id] = found

    def leave_out(self, video: Video, reason: LeftOut) -> None:
        """Count it."""
        with self._lock:
            self.left_out[reason] += 1
