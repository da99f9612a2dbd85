"""Follows the announced weights: loads them next to those in use, tries them, and uses them for later clips.

A key in Redis names the active weights, and a channel reports changes at once. Messages can be lost, so the key itself
is read regularly too. If anything is wrong with the announced weights, those in use stay.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast

import redis
import structlog
from redis.client import PubSub

from models.checkpoint_header import CheckpointError
from models.config import ConfigError
from models.errors import UnmaskError
from models.zoo import ZooError
from pipeline import assembly, detectors
from pipeline.contracts import CHANGED_CHANNEL, Announcement
from pipeline.graphs.format import GraphError
from pipeline.scan import Scanner
from pipeline.scoring.backend import Backend
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.telemetry import Metrics
from pipeline.weights.age import made_weights
from pipeline.weights.announced import ActiveWeights, AnnouncementError, parse
from pipeline.weights.leases import Scanners
from pipeline.weights.registry import MAX_WEIGHTS_BYTES, DamagedError, Registry, RegistryError
from pipeline.weights.shadow import Differences, LiveCrops, compare

log = structlog.get_logger(__name__)

T = TypeVar("T")

# A lost message delays a change by at most this long.
POLL_S: Final = 30.0
# How soon the end of the worker is noticed.
_TURN_S: Final = 0.5
# Wait after a try that failed for a transient reason; it doubles from try to try, up to a maximum.
_RETRY_S: Final = 30.0
_RETRY_MAX_S: Final = 600.0
_REDIS_AWAY_S: Final = 2.0
# A fetch cannot be interrupted: a stopping worker waits at most this long for it.
_LEAVE_S: Final = 15.0


class RefusedError(UnmaskError):
    """The announced weights are unusable; another try would not help."""


class UnavailableError(UnmaskError):
    """The announced weights are not available at the moment."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Weights that were fetched, checked and warmed up.

    Attributes:
        made_s: when they were made, Unix seconds, or else promoted.
    """

    detector: detectors.Detector
    engine: Engine
    made_s: float


@dataclass(frozen=True, slots=True)
class Loader:
    """Fetches announced weights and starts their engine.

    Attributes:
        cache: folder for fetched weights.
        create: makes the backend of a detector.
        registry: where weights are read; None: announced ones are refused, since the announcement must not choose.
    """

    cache: Path
    create: Callable[[detectors.Detector], Backend]
    registry: str | None = None

    def __call__(self, announcement: Announcement) -> Loaded:
        """Fetch, check, load, warm up.

        Raises:
            RefusedError: the bytes differ from the announcement, are not a detector, or give scores that are not
                finite.
            UnavailableError: they cannot be fetched, or the backend is not available.
        """
        if self.registry is None:
            raise RefusedError("UNMASK_REGISTRY is not set: this worker fetches no announced weights")
        try:
            registry = Registry(self.registry, self.cache)
            path = registry.get(announcement.sha256, announcement.size_bytes or MAX_WEIGHTS_BYTES)
        except (DamagedError, ValueError) as error:
            raise RefusedError(str(error)) from error
        except RegistryError as error:
            raise UnavailableError(str(error)) from error
        self._fetch_graph(registry, announcement)
        try:
            detector = detectors.load(architecture=None, weights=path, untrained=False)
        except GraphError as error:
            raise UnavailableError(f"{error}") from error
        except (CheckpointError, ConfigError, ZooError, ValueError) as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        if detector.sha256 != announcement.sha256:
            raise RefusedError(f"{path}: has sha256 {detector.sha256}, not {announcement.sha256}")
        try:
            backend = self.create(detector)
        except (CheckpointError, ConfigError) as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        except Exception as error:  # compiling may raise anything; lack of memory or of a driver may be transient
            raise UnavailableError(f"no backend: {type(error).__name__}: {error}") from error
        engine = Engine(backend, warm_up=True)
        try:
            engine.ready()
        except ScoringError as error:
            engine.close()
            raise RefusedError(str(error)) from error
        made_s = made_weights(detector).made_s
        return Loaded(detector, engine, announcement.promoted_at if made_s is None else made_s)

    def _fetch_graph(self, registry: Registry, announcement: Announcement) -> None:
        """Put the announced graph next to the weights; where that fails, it is made from them, which needs torch."""
        if announcement.graph is None:
            return
        try:
            registry.get_graph(
                announcement.graph.sha256, announcement.graph.size_bytes, weights_sha256=announcement.sha256
            )
        except (RegistryError, ValueError) as error:
            log.warning("the graph of the announced weights cannot be fetched", error=str(error))


class Follower:
    """Keeps a worker's weights equal to the announced ones."""

    def __init__(
        self,
        client: redis.Redis,
        load: Callable[[Announcement], Loaded],
        metrics: Metrics,
        *,
        shadow_crops: int,
        shadow_s: float,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Does nothing yet.

        Args:
            client: of the Redis in which weights are announced.
            load: see `Loader`.
            metrics: counts each change.
            shadow_crops: live crops on which new weights are compared with those in use; 0: none.
            shadow_s: how long a change waits for them once the new weights are ready.
            poll_s: how often the announcement is read without a message.
            clock: seconds.
        """
        self._client, self._load, self._metrics = client, load, metrics
        self._active = ActiveWeights(client)
        self._shadow_crops, self._shadow_s, self._poll_s, self._clock = shadow_crops, shadow_s, poll_s, clock
        self._stopping = threading.Event()
        # The last announcement that was applied or refused; and the one to try again, and when.
        self._settled: bytes | None = None
        self._failing: bytes | None = None
        self._again_s, self._wait_s = 0.0, _RETRY_S

    def first(self) -> Loaded | None:
        """The announced weights for a starting worker; None without any, or if they cannot be loaded."""
        try:
            raw = self._active.raw()
        except redis.RedisError as error:
            log.warning("announced weights unknown, using the worker's own until Redis answers", error=str(error))
            return None
        if raw is None:
            return None
        loaded = self._attempt(raw, self._load)
        if loaded is None:
            log.warning("the announced weights cannot be used, using the worker's own")
        return loaded

    @contextmanager
    def following(self, scanners: Scanners) -> Iterator[None]:
        """Follow within the block, on a thread."""
        thread = threading.Thread(target=self._run, args=[scanners], name="weights", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(_LEAVE_S)

    def _run(self, scanners: Scanners) -> None:
        away = False
        while not self._stopping.is_set():
            try:
                changes = cast(PubSub, self._client.pubsub(ignore_subscribe_messages=True))  # type: ignore[no-untyped-call]
                with changes:
                    changes.subscribe(CHANGED_CHANNEL)
                    # Read after subscribing, so that no change is missed in between.
                    while not self._stopping.is_set():
                        raw = self._active.raw()
                        if away:
                            away = False
                            log.info("announcements are received again")
                        self._take(raw, scanners)
                        self._wait(changes)
            except redis.RedisError as error:
                if not away:
                    log.warning("announcements cannot be received", error=str(error))
                away = True
                self._stopping.wait(_REDIS_AWAY_S)

    def _wait(self, changes: PubSub) -> None:
        """Wait until a message comes, or the next read or try is due."""
        until_s = self._clock() + self._poll_s
        if self._failing is not None:
            until_s = min(until_s, self._again_s)
        while not self._stopping.is_set() and (left_s := until_s - self._clock()) > 0:
            if changes.get_message(timeout=min(left_s, _TURN_S)) is not None:
                return

    def _take(self, raw: bytes | None, scanners: Scanners) -> None:
        """Use the announced weights, unless they were tried already."""
        if raw != self._failing:
            self._failing = None
        if raw is None or raw == self._settled or (raw == self._failing and self._clock() < self._again_s):
            return
        self._attempt(raw, lambda announcement: self._change(announcement, scanners))

    def _attempt(self, raw: bytes, use: Callable[[Announcement], T]) -> T | None:
        """Apply `use` to an announcement; the outcome is logged, counted and remembered."""
        if raw != self._failing:
            self._wait_s = _RETRY_S
        sha256: str | None = None
        try:
            announcement = parse(raw)
            sha256 = announcement.sha256
            result = use(announcement)
        except (AnnouncementError, RefusedError, ScoringError) as error:
            self._metrics.swaps.labels("refused").inc()
            log.error("weights refused", weights=sha256, error=str(error))
        except Exception as error:  # weights that cannot be loaded must not end a worker that can serve
            self._metrics.swaps.labels("failed").inc()
            self._failing, self._again_s = raw, self._clock() + self._wait_s
            unforeseen = not isinstance(error, UnavailableError)
            log.error(
                "weights not loaded", weights=sha256, error=repr(error), again_s=self._wait_s, exc_info=unforeseen
            )
            self._wait_s = min(2 * self._wait_s, _RETRY_MAX_S)
            return None
        else:
            self._settled, self._failing = raw, None
            return result
        self._settled, self._failing = raw, None
        return None

    def _change(self, announcement: Announcement, scanners: Scanners) -> None:
        members = scanners.provenance.weights_sha256
        if len(members) > 1:
            raise RefusedError(
                f"this worker scores with an ensemble of {len(members)} weights, which announced weights cannot replace"
            )
        if announcement.sha256 == members[0]:
            return
        started_s = self._clock()
        log.info("weights announced", weights=announcement.sha256, model=announcement.name, forced=announcement.forced)
        crops = LiveCrops(self._shadow_crops)
        with scanners.current() as running:
            with crops.of(running.engine):
                loaded = self._load(announcement)
                ready_s = self._clock() - started_s
                try:
                    found = self._shadow(running, loaded, crops)
                except BaseException:
                    loaded.engine.close()
                    raise
            if self._stopping.is_set():
                loaded.engine.close()
                return
            replacement = assembly.with_detector(running, loaded.detector, loaded.engine)
        scanners.swap(replacement)
        # OpenVINO's converter leaves reference cycles that keep a whole model.
        gc.collect()
        self._metrics.swaps.labels("swapped").inc()
        self._metrics.tell_weights(replacement.provenance.model, announcement.sha256, loaded.made_s)
        log.info(
            "weights swapped",
            weights=announcement.sha256,
            model=replacement.provenance.model,
            before=running.provenance.weights_sha256[0],
            loaded_s=round(ready_s, 3),
            shadow_crops=0 if found is None else found.crops,
        )

    def _shadow(self, running: Scanner, loaded: Loaded, crops: LiveCrops) -> Differences | None:
        """Compare with the weights in use, if both take the same crops."""
        spec, info = loaded.detector.input_spec, loaded.detector.info
        if not self._shadow_crops:
            return None
        if spec.hash != running.spec.hash:
            log.info("no comparison: the new weights take other crops", input_spec=spec.hash, before=running.spec.hash)
            return None
        until_s = self._clock() + self._shadow_s
        while not self._stopping.is_set() and (left_s := until_s - self._clock()) > 0:
            if crops.full.wait(min(left_s, _TURN_S)):
                break
        if self._stopping.is_set():
            return None
        found = compare(loaded.engine, info.calibration if info else None, crops.taken(), running.calibration)
        if found is None:
            log.info("no comparison: no crops were scored in this time", waited_s=self._shadow_s)
            return None
        metrics = self._metrics
        metrics.shadow_crops.set(found.crops)
        for name in ("mean", "p95", "max"):
            metrics.shadow_difference.labels(name).set(getattr(found, name))
        log.info(
            "weights compared",
            crops=found.crops,
            mean=round(found.mean, 4),
            p95=round(found.p95, 4),
            max=round(found.max, 4),
        )
        return found
