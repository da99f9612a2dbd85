"""Announced weights: fetched from the registry, checked, loaded and warmed up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from models.checkpoint_header import CheckpointError
from models.config import ConfigError
from models.errors import UnmaskError
from models.zoo import ZooError
from pipeline import detectors
from pipeline.contracts import Announcement
from pipeline.graphs.format import GraphError
from pipeline.scoring.backend import Backend
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.weights.age import made_weights
from pipeline.weights.registry import MAX_WEIGHTS_BYTES, DamagedError, Registry, RegistryError

log = structlog.get_logger(__name__)


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
