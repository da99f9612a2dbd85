"""KEDA's Kafka scaler and the HorizontalPodAutoscaler behind it: how many workers there should be.

KEDA reads the lag every `pollingInterval` and gives it to the autoscaler as an external metric with an average value,
whose rule is ceil(lag / threshold). The autoscaler's own defaults: up at once, by at most 100 % or four pods in 15 s;
down to the highest wish of the last five minutes (Kubernetes' documentation of horizontal pod autoscaling, KEDA's of
its Kafka scaler).
"""

from __future__ import annotations

import math
from collections import deque

from pipeline.planning.scenario import Keda

# The default policies of scaling up: the larger of these in each period.
_UP_PODS, _UP_SHARE, _PERIOD_S = 4, 1.0, 15.0


class Autoscaler:
    """Decides from the lags that it sees; pure but for its memory."""

    def __init__(self, keda: Keda, partitions: int) -> None:
        self._keda, self._most = keda, min(keda.most, partitions)
        self._wishes: deque[tuple[float, int]] = deque()
        self._ups: deque[tuple[float, int]] = deque()
        self._last_lag_s = 0.0

    def wanted(self, now_s: float, lag: int, workers: int) -> int:
        """How many workers there should be now.

        Args:
            now_s: increasing.
            lag: as of the last poll.
            workers: that exist or start.
        """
        keda = self._keda
        if lag > 0:
            self._last_lag_s = now_s
        if workers == 0:
            # KEDA itself starts the first one, and the autoscaler goes on.
            return min(1, self._most) if lag > 0 or keda.least else 0
        ratio = lag / keda.lag / workers
        wish = workers if abs(ratio - 1) <= keda.tolerance else math.ceil(lag / keda.lag)
        wish = min(max(wish, keda.least, 1), self._most)
        self._wishes.append((now_s, wish))
        while self._wishes[0][0] < now_s - keda.stabilisation_s:
            self._wishes.popleft()
        if wish > workers:
            while self._ups and self._ups[0][0] <= now_s - _PERIOD_S:
                self._ups.popleft()
            before = workers - sum(added for _, added in self._ups)
            limit = max(before + _UP_PODS, math.ceil(before * (1 + _UP_SHARE)))
            target = max(workers, min(wish, limit))
            self._ups.append((now_s, target - workers))
            return target
        if keda.least == 0 and lag == 0 and now_s - self._last_lag_s >= keda.cooldown_s:
            return 0
        return min(workers, max(wish for _, wish in self._wishes))
