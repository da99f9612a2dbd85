"""`unmask worker` behind its options: assembles a worker, waits for Kafka and Redis, and runs it until a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType

import redis
import stamina
import structlog

from pipeline import assembly, tracing
from pipeline.contracts import VIDEO_TOPICS, Topic
from pipeline.detectors import load_all
from pipeline.live.store import StreamStore
from pipeline.parts.store import PartStore
from pipeline.results.store import VerdictStore, connect
from pipeline.scan import ClipCost
from pipeline.scanner_options import ScannerOptions
from pipeline.scoring.backends import create_backend
from pipeline.settings import REGISTRY_CACHE, Settings
from pipeline.sources import SourceLimits
from pipeline.telemetry import HealthServer, Metrics
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher, TransportError, answers, ensure_topics
from pipeline.weights.age import made_weights, oldest_s
from pipeline.weights.follow import Follower
from pipeline.weights.leases import Scanners
from pipeline.weights.loading import Loader
from pipeline.worker.access import UriAllow
from pipeline.worker.loop import Worker
from pipeline.worker.message import Service, Slots
from pipeline.worker.progress import ProgressNotes
from pipeline.worker.streams import Live

log = structlog.get_logger(__name__)

_WAIT_MAX_S = 5.0
# Segments that are held, of 900 kB at most. Enough that one slow stream does not keep the others waiting.
_SEGMENTS = 32


class StoppedError(Exception):
    """Stopped before it served anything."""


def run(options: ScannerOptions, weights: str | None, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; a second one leaves at once.

    Args:
        options: how clips are read and scored; its sampling is for tasks that name none.
        weights: checkpoints or zoo names with commas between; None: the announced ones are followed.
        settings: of the service.

    Raises:
        ValueError: Kafka or Redis is not set, or a setting cannot be read.
        OSError: the port for health and metrics is taken.
    """
    if not settings.kafka or not settings.redis:
        raise ValueError("a worker needs Kafka and Redis")
    allow = UriAllow.parse(settings.uri_allow or "")
    client = connect(settings.redis)
    metrics = Metrics()
    health = _Health(client, settings.kafka, settings.stuck_s)
    signals = _Signals()
    clips = options.clips_at_once
    follower = _follower(options, weights, settings, client, metrics)
    with ExitStack() as stack:
        stack.enter_context(tracing.exporting("unmask-worker"))
        server = stack.enter_context(
            HealthServer(metrics, health.checks, facts=health.facts, host=settings.http_host, port=settings.http_port)
        )
        announced = None if follower is None else follower.first()
        if announced is None:
            detectors, scoring = load_all(architecture=None, weights=weights, untrained=False), None
        else:
            detectors, scoring = (announced.detector,), announced.engine
        log.info(
            "starting",
            http=f"http://{settings.http_host}:{server.port}",
            model="+".join(detector.name for detector in detectors),
            weights=",".join(detector.sha256 for detector in detectors),
            pinned=follower is None,
            clips=clips,
        )
        store = VerdictStore(client, ttl_s=settings.ttl_s)
        notes = stack.enter_context(ProgressNotes(store))
        scanner = stack.enter_context(
            assembly.scanner(
                detectors,
                options,
                source_limits=SourceLimits.of(settings),
                min_coverage=settings.min_coverage,
                portraits=False,
                progress=notes.frame,
                cost=lambda cost: _observe(metrics, cost),
                batch_size=metrics.batch_crops.observe,
                scoring=scoring,
                warm_up=True,
            )
        )
        made_s = oldest_s([made_weights(each) for each in detectors]) if announced is None else announced.made_s
        # No reference here may keep the first weights in memory once others serve.
        del announced, detectors, scoring
        scanners = stack.enter_context(Scanners(scanner))
        metrics.watch_engine(scanners.stats)
        metrics.tell_weights(scanners.provenance.model, ",".join(scanners.provenance.weights_sha256), made_s)
        health.scanners = scanners
        if follower is not None:
            stack.enter_context(follower.following(scanners))
        health.model = None
        try:
            publisher, consumer = _connect(settings.kafka, clips, signals, server.tick)
        except StoppedError:
            return
        stack.enter_context(publisher)
        health.consumer = consumer
        service = Service(
            scanners,
            store,
            publisher,
            consumer,
            metrics,
            allow,
            parts=PartStore(client, settings.ttl_s),
            split_s=settings.split_s,
            progress=notes.note,
            judged=(lambda verdict: None) if follower is None else follower.judged,
            max_attempts=settings.max_attempts,
        )
        health.slots = service.slots
        live = Live(
            StreamStore(client, ttl_s=settings.ttl_s),
            at_once=clips,
            max_age_s=settings.live_max_age_s,
            idle_s=settings.stream_idle_s,
        )
        worker = Worker(service, clips=clips, drain_s=settings.drain_s, live=live, tick=server.tick)
        signals.then(worker.drain, worker.stop)
        log.info("serving", kafka=settings.kafka, weights=",".join(scanners.provenance.weights_sha256))
        worker.run()
        log.info("left")


def _follower(
    options: ScannerOptions, weights: str | None, settings: Settings, client: redis.Redis, metrics: Metrics
) -> Follower | None:
    """Follows the announced weights; None where weights are named."""
    if weights:
        return None
    load = Loader(
        settings.cache_dir / REGISTRY_CACHE,
        lambda detector: create_backend(detector, backend=options.backend, device=options.device),
        settings.registry,
    )
    return Follower(client, load, metrics, shadow_crops=settings.shadow_crops, shadow_s=settings.shadow_s)


def _connect(bootstrap: str, clips: int, signals: _Signals, tick: Callable[[], None]) -> tuple[Publisher, TaskConsumer]:
    """Wait for Kafka without limit; raises StoppedError on a signal."""

    def transient(error: Exception) -> bool:
        return isinstance(error, TransportError) and not signals.count

    try:
        for attempt in stamina.retry_context(on=transient, attempts=None, timeout=None, wait_max=_WAIT_MAX_S):
            with attempt:
                tick()
                ensure_topics(bootstrap, patience_s=_WAIT_MAX_S)
                publisher = Publisher(bootstrap)
                try:
                    # One more than are judged at once: the next one is here when a clip ends.
                    capacities = {(Topic.SEGMENTS,): _SEGMENTS, VIDEO_TOPICS: clips + 1}
                    return publisher, TaskConsumer(bootstrap, capacities=capacities)
                except TransportError:
                    publisher.close()
                    raise
    except TransportError as error:
        raise StoppedError from error
    raise AssertionError("stamina ends with a result or an error")


def _observe(metrics: Metrics, cost: ClipCost) -> None:
    for stage, seconds in cost.seconds.items():
        metrics.stage_seconds.labels(stage).observe(seconds, tracing.exemplar())
    metrics.decoder_deaths.inc(cost.decoder_died)


class _Signals:
    """SIGTERM and SIGINT, counted from the start; `then` says what they do."""

    def __init__(self) -> None:
        self.count = 0
        self._actions: tuple[Callable[[], None], ...] = ()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def then(self, *actions: Callable[[], None]) -> None:
        """Set what the first, the second ... signal does; signals that came already do it now."""
        self._actions = actions
        for action in actions[: self.count]:
            action()

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count <= len(self._actions):
            self._actions[self.count - 1]()


class _Health:
    """The checks of `/readyz`."""

    def __init__(self, client: redis.Redis, bootstrap: str, stuck_s: float) -> None:
        self.model: str | None = "loading"
        self.consumer: TaskConsumer | None = None
        self.scanners: Scanners | None = None
        self._client, self._bootstrap, self._stuck_s = client, bootstrap, stuck_s
        self.slots: Slots | None = None
        self.checks = {
            "model": lambda: self.model,
            "kafka": self._kafka,
            "redis": self._redis,
            "messages": self._messages,
        }
        self.facts = {"weights": self._weights}

    def _kafka(self) -> str | None:
        if not answers(self._bootstrap):
            return f"no answer at {self._bootstrap}"
        if self.consumer is None or not self.consumer.is_member:
            return "not yet a member of the group"
        return None

    def _messages(self) -> str | None:
        return None if self.slots is None else self.slots.stuck(self._stuck_s)

    def _weights(self) -> str | None:
        return None if self.scanners is None else ",".join(self.scanners.provenance.weights_sha256)

    def _redis(self) -> str | None:
        try:
            self._client.ping()
        except redis.RedisError as error:
            return f"{type(error).__name__}: {error}"
        return None
