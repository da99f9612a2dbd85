"""The way to the workers: Kafka and Redis, connected to when they are there."""

from __future__ import annotations

import threading

from pipeline.results.store import VerdictStore, connect
from pipeline.settings import Settings
from pipeline.transport.kafka import Publisher, answers, ensure_topics
from pipeline.weights.age import MadeWeights, announced_weights
from pipeline.weights.announced import ActiveWeights

# A try to reach a broker; it is repeated.
_PATIENCE_S = 5.0


class Workers:
    """Safe to share between threads.

    Args:
        settings: with Kafka and Redis.

    Attributes:
        bootstrap: servers of Kafka, with commas between.
        client: of Redis.
        verdicts: in Redis.

    Raises:
        ValueError: one is not set, or not a URL of Redis.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.kafka or not settings.redis:
            raise ValueError("UNMASK_KAFKA and UNMASK_REDIS go together: workers take from one and write to the other")
        self.bootstrap = settings.kafka
        self.client = connect(settings.redis)
        self.verdicts = VerdictStore(self.client, ttl_s=settings.ttl_s)
        self._publisher: Publisher | None = None
        self._connecting = threading.Lock()

    @property
    def connected(self) -> Publisher | None:
        """To Kafka; None before it was reached."""
        return self._publisher

    def publisher(self) -> Publisher:
        """To Kafka; the first call connects, and makes the topics that are missing.

        Raises:
            TransportError: it is away.
        """
        with self._connecting:
            if self._publisher is None:
                ensure_topics(self.bootstrap, patience_s=_PATIENCE_S)
                self._publisher = Publisher(self.bootstrap, patience_s=_PATIENCE_S)
            return self._publisher

    def announced(self) -> list[MadeWeights]:
        """The announced weights, the active ones first.

        Raises:
            redis.RedisError: Redis is away.
            AnnouncementError: the active value is not an announcement.
        """
        weights = ActiveWeights(self.client)
        active = weights.read()
        found = [] if active is None else [active.announcement]
        return [announced_weights(each) for each in (*found, *weights.history())]

    def answers(self) -> bool:
        """Whether one of Kafka's servers answers now."""
        return answers(self.bootstrap)

    def interrupt(self) -> None:
        """Let what is being sent to Kafka fail within seconds."""
        if self._publisher is not None:
            self._publisher.close()

    def close(self) -> None:
        """Disconnect; no thread may use it any more."""
        self.interrupt()
        self.client.close()
