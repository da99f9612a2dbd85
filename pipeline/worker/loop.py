"""The worker's loop: takes messages from Kafka, and commits each offset only when its result is stored.

The order makes it safe: first the verdict is stored in Redis, which keeps the first one; then the stored bytes are
published and acknowledged; then the offset may be committed. A crash between two steps repeats work, and loses and
changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from pipeline.contracts import Topic
from pipeline.transport.consumer import Delivery
from pipeline.transport.kafka import TransportError
from pipeline.worker.message import Service, serve
from pipeline.worker.streams import Live, LiveStreams
from pipeline.worker.video import VideoMessage

log = structlog.get_logger(__name__)

_POLL_S = 0.2


class Worker:
    """Runs a service: `run` on one thread, which owns the consumer; clips on others."""

    def __init__(
        self,
        service: Service,
        *,
        clips: int,
        drain_s: float,
        live: Live | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        """Does nothing yet.

        Args:
            service: what it works with.
            clips: judged at once.
            drain_s: how long a stopping worker may take to finish running tasks.
            live: how segments of live streams are served; None where the consumer takes no segments.
            tick: called in each round of the loop.
        """
        self._service, self._clips, self._drain_s, self._live, self._tick = service, clips, drain_s, live, tick
        self._draining = threading.Event()
        self._stopping = threading.Event()

    def drain(self) -> None:
        """Take no new tasks, finish running ones, leave. Safe to call from a signal handler."""
        self._draining.set()

    def stop(self) -> None:
        """Leave now: running tasks are handed back. Safe to call from a signal handler."""
        self._draining.set()
        self._stopping.set()

    def run(self) -> None:
        """Serve until `drain` or `stop` is called."""
        consumer, live = self._service.consumer, self._live
        with (
            ThreadPoolExecutor(self._clips, thread_name_prefix="clip") as pool,
            # Threads of their own: a segment does not wait for a long clip to end.
            ThreadPoolExecutor(live.at_once if live else 1, thread_name_prefix="live") as live_pool,
        ):
            streams = None if live is None else LiveStreams(self._service, live, live_pool, self._stopping)
            try:
                while not self._draining.is_set():
                    self._step(pool, streams)
                    if streams is not None:
                        streams.close_idle()
                log.info("leaving", tasks=consumer.waiting)
                consumer.take_no_more()
                deadline = time.monotonic() + self._drain_s
                while consumer.waiting and not self._stopping.is_set() and time.monotonic() < deadline:
                    self._step(pool, streams)
            finally:
                # From here on, clips end at their next frame; the pool waits for them.
                self._stopping.set()
        consumer.close()

    def _step(self, pool: ThreadPoolExecutor, streams: LiveStreams | None) -> None:
        consumer, metrics = self._service.consumer, self._service.metrics
        self._tick()
        try:
            for delivery in consumer.poll(_POLL_S):
                if streams is not None and delivery.topic is Topic.SEGMENTS:
                    streams.submit(delivery)
                else:
                    pool.submit(self._serve, delivery)
            for topic, messages in consumer.lag().items():
                metrics.lag.labels(topic).set(messages)
            for topic, seconds in consumer.oldest_waiting_s().items():
                metrics.waiting_s.labels(topic).set(seconds)
        except TransportError as error:
            log.warning("kafka refuses", error=str(error))
            self._stopping.wait(_POLL_S)
        metrics.in_flight.set(consumer.waiting)
        metrics.left.set(consumer.left)
        oldest = self._service.slots.oldest()
        metrics.oldest_s.set(0.0 if oldest is None else oldest[1])

    def _serve(self, delivery: Delivery) -> None:
        with structlog.contextvars.bound_contextvars(
            topic=str(delivery.topic), partition=delivery.partition, offset=delivery.offset
        ):
            serve(VideoMessage(self._service, delivery, self._stopping))
