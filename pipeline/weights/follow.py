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
from typing import Final, TypeVar, cast

import redis
import structlog
from redis.client import PubSub

from pipeline import assembly
from pipeline.contracts import CHANGED_CHANNEL, Announcement, Canary, Verdict
from pipeline.scan import Scanner
from pipeline.scoring.engine import ScoringError
from pipeline.telemetry import Metrics
from pipeline.weights.announced import ActiveWeights, AnnouncementError, parse
from pipeline.weights.arms import is_in_canary
from pipeline.weights.canary import Announced, Canaries, CountersError, parse_canary
from pipeline.weights.leases import Scanners
from pipeline.weights.loading import Loaded, RefusedError, UnavailableError
from pipeline.weights.shadow import Differences, LiveCrops, compare

log = structlog.get_logger(__name__)

T = TypeVar("T")
Found = TypeVar("Found", bound=Announcement)

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


@dataclass(frozen=True, slots=True)
class _Ready:
    """A scanner with new weights.

    Attributes:
        found: how they differ on live crops; None: not compared.
        at_s: when they were loaded, by the follower's clock.
        made_s: when they were made, Unix seconds.
    """

    scanner: Scanner
    found: Differences | None
    at_s: float
    made_s: float


class _Tries:
    """Which announced bytes were applied or refused, and which are tried again, and when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.settled: bytes | None = None
        self.failing: bytes | None = None
        self.again_s = self.wait_s = 0.0

    def is_due(self, raw: bytes) -> bool:
        """Whether these bytes are to be tried now."""
        if raw != self.failing:
            self.failing, self.wait_s = None, _RETRY_S
        return raw != self.settled and not (raw == self.failing and self._clock() < self.again_s)

    def failed(self, raw: bytes) -> float:
        """Try these bytes again later; returns in how many seconds."""
        waits_s = self.wait_s
        self.failing, self.again_s = raw, self._clock() + waits_s
        self.wait_s = min(2 * waits_s, _RETRY_MAX_S)
        return waits_s

    def settle(self, raw: bytes) -> None:
        """Do not try these bytes again."""
        self.settled, self.failing = raw, None


class Follower:
    """Keeps a worker's weights equal to the announced ones, and a canary next to them while one is announced."""

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
        self._active, self._canaries = ActiveWeights(client), Canaries(client)
        self._shadow_crops, self._shadow_s, self._poll_s, self._clock = shadow_crops, shadow_s, poll_s, clock
        self._stopping = threading.Event()
        self._tries, self._canary_tries = _Tries(clock), _Tries(clock)
        self._canary: Announced | None = None

    def first(self) -> Loaded | None:
        """The announced weights for a starting worker; None without any, or if they cannot be loaded."""
        try:
            raw = self._active.raw()
        except redis.RedisError as error:
            log.warning("announced weights unknown, using the worker's own until Redis answers", error=str(error))
            return None
        if raw is None:
            return None
        self._tries.is_due(raw)
        loaded = self._attempt(self._tries, raw, parse, self._load)
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

    def judged(self, verdict: Verdict) -> None:
        """Count a new verdict in its arm, while a canary runs here; the canary ends if the arms differ too far."""
        announced = self._canary
        if announced is None:
            return
        try:
            why = self._canaries.count(announced, verdict)
        except (redis.RedisError, CountersError) as error:
            log.warning("a verdict is not counted for the canary", error=str(error))
            return
        if why is not None:
            self._metrics.canary_alarms.inc()
            log.error("the canary was ended", weights=announced.canary.sha256, model=announced.canary.name, error=why)

    def _run(self, scanners: Scanners) -> None:
        away = False
        while not self._stopping.is_set():
            try:
                changes = cast(PubSub, self._client.pubsub(ignore_subscribe_messages=True))  # type: ignore[no-untyped-call]
                with changes:
                    changes.subscribe(CHANGED_CHANNEL)
                    # Read after subscribing, so that no change is missed in between.
                    while not self._stopping.is_set():
                        raw, canary = self._active.raw(), self._canaries.raw()
                        if away:
                            away = False
                            log.info("announcements are received again")
                        self._end_canary(raw, canary, scanners)
                        if raw is not None and self._tries.is_due(raw):
                            self._attempt(self._tries, raw, parse, lambda found: self._change(found, scanners))
                        if canary is not None and self._canary_tries.is_due(canary):
                            self._take_canary(canary, scanners)
                        self._wait(changes)
            except redis.RedisError as error:
                if not away:
                    log.warning("announcements cannot be received", error=str(error))
                away = True
                self._stopping.wait(_REDIS_AWAY_S)

    def _wait(self, changes: PubSub) -> None:
        """Wait until a message comes, or the next read or try is due."""
        until_s = self._clock() + self._poll_s
        for tries in (self._tries, self._canary_tries):
            if tries.failing is not None:
                until_s = min(until_s, tries.again_s)
        while not self._stopping.is_set() and (left_s := until_s - self._clock()) > 0:
            if changes.get_message(timeout=min(left_s, _TURN_S)) is not None:
                return

    def _attempt(
        self, tries: _Tries, raw: bytes, read: Callable[[bytes], Found], use: Callable[[Found], T]
    ) -> T | None:
        """Apply `use` to an announcement; the outcome is logged, counted and remembered."""
        sha256: str | None = None
        try:
            announcement = read(raw)
            sha256 = announcement.sha256
            result = use(announcement)
        except (AnnouncementError, RefusedError, ScoringError) as error:
            self._metrics.swaps.labels("refused").inc()
            log.error("weights refused", weights=sha256, error=str(error))
        except Exception as error:  # weights that cannot be loaded must not end a worker that can serve
            self._metrics.swaps.labels("failed").inc()
            unforeseen = not isinstance(error, UnavailableError)
            log.error(
                "weights not loaded", weights=sha256, error=repr(error), again_s=tries.failed(raw), exc_info=unforeseen
            )
            return None
        else:
            tries.settle(raw)
            return result
        tries.settle(raw)
        return None

    def _change(self, announcement: Announcement, scanners: Scanners) -> None:
        before = self._only_weights(scanners)
        if announcement.sha256 == before:
            return
        started_s = self._clock()
        log.info("weights announced", weights=announcement.sha256, model=announcement.name, forced=announcement.forced)
        ready = self._ready(announcement, scanners)
        if ready is None:
            return
        # A canary is judged beside the weights that it was announced with.
        self._canary = None
        scanners.end_canary()
        scanners.swap(ready.scanner)
        # OpenVINO's converter leaves reference cycles that keep a whole model.
        gc.collect()
        self._metrics.swaps.labels("swapped").inc()
        self._metrics.tell_weights(ready.scanner.provenance.model, announcement.sha256, ready.made_s)
        log.info(
            "weights swapped",
            weights=announcement.sha256,
            model=ready.scanner.provenance.model,
            before=before,
            loaded_s=round(ready.at_s - started_s, 3),
            shadow_crops=0 if ready.found is None else ready.found.crops,
        )

    def _take_canary(self, raw: bytes, scanners: Scanners) -> None:
        """Let the announced canary judge its share, unless this worker does not use the weights beside it (yet)."""

        def begin(canary: Canary) -> None:
            log.info("canary announced", weights=canary.sha256, model=canary.name, share=canary.share)
            ready = self._ready(canary, scanners)
            if ready is None:
                return
            if ready.found is not None:
                self._canaries.compared(canary, ready.found)
            scanners.begin_canary(ready.scanner, lambda id_: is_in_canary(id_, canary.sha256, canary.share))
            self._canary = Announced(canary, raw)
            gc.collect()
            self._metrics.swaps.labels("canary").inc()
            log.info("canary begun", weights=canary.sha256, beside=canary.previous, share=canary.share)

        try:
            if parse_canary(raw).previous != self._only_weights(scanners):
                return
        except (AnnouncementError, RefusedError):
            pass  # reported below
        self._attempt(self._canary_tries, raw, parse_canary, begin)

    def _end_canary(self, active: bytes | None, canary: bytes | None, scanners: Scanners) -> None:
        """End the canary here if it is not announced any more, or other weights are active."""
        mine = self._canary
        if canary is None:
            self._canary_tries.settled = None
        if mine is None:
            return
        try:
            beside = None if active is None else parse(active).sha256
        except AnnouncementError:
            return  # reported where it is applied
        if canary != mine.raw or beside != mine.canary.previous:
            self._canary = None
            scanners.end_canary()
            self._canary_tries.settled = None
            log.info("canary no longer used", weights=mine.canary.sha256)

    def _only_weights(self, scanners: Scanners) -> str:
        members = scanners.provenance.weights_sha256
        if len(members) > 1:
            raise RefusedError(
                f"this worker scores with an ensemble of {len(members)} weights, which announced weights cannot replace"
            )
        return members[0]

    def _ready(self, announcement: Announcement, scanners: Scanners) -> _Ready | None:
        """A scanner with these weights, compared with those in use; None if the worker stops."""
        crops = LiveCrops(self._shadow_crops)
        with scanners.current() as running:
            with crops.of(running.engine):
                loaded = self._load(announcement)
                at_s = self._clock()
                try:
                    found = self._shadow(running, loaded, crops)
                except BaseException:
                    loaded.engine.close()
                    raise
            if self._stopping.is_set():
                loaded.engine.close()
                return None
            replacement = assembly.with_detector(running, loaded.detector, loaded.engine)
            return _Ready(replacement, found, at_s, loaded.made_s)

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
