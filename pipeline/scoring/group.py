"""Engines that act as one: an ensemble's members, or one detector with several looks at each face."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Self

import numpy as np

from models.ensemble import Combination
from models.spec import InputSpec
from pipeline.faces.views import Looks, View
from pipeline.scoring.engine import Engine, EngineStats
from pipeline.types import Floats, Image


class EngineGroup:
    """One engine for each member; `combination` gives a face's score from theirs. Thread-safe.

    Members whose crops are equal share them. A member's log-odds are the mean over its looks.
    """

    def __init__(
        self, engines: Sequence[Engine], specs: Sequence[InputSpec], combination: Combination, looks: Looks
    ) -> None:
        """Take ownership of the engines.

        Args:
            engines: of the members.
            specs: their inputs.
            combination: of the members, in the same order.
            looks: further looks at each face.

        Raises:
            ValueError: the numbers of engines, specs and calibrations differ.
        """
        if not len(engines) == len(specs) == len(combination.members) > 0:
            raise ValueError("an ensemble needs an engine, an input spec and a calibration for each member")
        self._engines, self._combination = tuple(engines), combination
        wanted = [looks.views(spec) for spec in specs]
        self.views: tuple[View, ...] = tuple(dict.fromkeys(view for views in wanted for view in views))
        self._views_of = [[self.views.index(view) for view in views] for views in wanted]
        self.batch_size: Callable[[int], None] | None = engines[0].batch_size

    @property
    def name(self) -> str:
        """Names of the members' backends."""
        return "+".join(dict.fromkeys(engine.name for engine in self._engines))

    def submit(self, views: Sequence[Image]) -> Future[Floats]:
        """Queue crops; blocks while a member's queue is full.

        Args:
            views: uint8 [N, S, S, 3] for each of `self.views`, in its order.

        Returns:
            A future of float32 [N], log-odds of fake before the combination's calibration; it holds a `ScoringError`
            if a member failed on one of the crops.

        Raises:
            ValueError: another number of views, or crops that do not have a member's input size.
            QueueClosedError: the engines were closed.
        """
        if len(views) != len(self.views):
            raise ValueError(f"expected crops of {len(self.views)} views, got {len(views)}")
        parts = [
            [engine.submit(views[index]) for index in indices]
            for engine, indices in zip(self._engines, self._views_of, strict=True)
        ]
        return _joined(parts, self._combination)

    def tap(self, heard: Callable[[Image, float], None] | None) -> None:
        """As `Engine.tap`, for the first member: each of its looks is passed with its own log-odds."""
        self._engines[0].tap(heard)

    def stats(self) -> EngineStats:
        """Sums over the members: a face counts once for each member and look. The age is that of the oldest crop."""
        return EngineStats.total([engine.stats() for engine in self._engines])

    def close(self) -> None:
        """Score the waiting crops, then stop. Idempotent."""
        for engine in self._engines:
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _joined(parts: Sequence[Sequence[Future[Floats]]], combination: Combination) -> Future[Floats]:
    """A future of the combined scores, done with the last of the parts."""
    joined: Future[Floats] = Future()
    lock = threading.Lock()
    left = sum(len(looks) for looks in parts)

    def done(_: Future[Floats]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        try:
            joined.set_result(
                combination.combine(np.stack([np.mean([part.result() for part in looks], axis=0) for looks in parts]))
            )
        except Exception as error:  # noqa: BLE001 - any error of a member is the result of these crops
            joined.set_exception(error)

    for looks in parts:
        for part in looks:
            part.add_done_callback(done)
    return joined
