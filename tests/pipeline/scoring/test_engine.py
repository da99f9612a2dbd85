"""The engine with failing backends: no other crop is lost, and no one waits forever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.backend import Done
from pipeline.scoring.batcher import QueueClosedError
from pipeline.scoring.engine import Engine, ScoringError
from pipeline.types import Floats, Image

PATIENCE_S = 30
SIZE = 2
BAD = 13


def crops(*values: int) -> Image:
    """One crop for each value; the fakes below score a crop by its value."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), SIZE, SIZE, 3)).copy()


def right(*values: int) -> list[float]:
    return [value - 100.0 for value in values]


Compute = Callable[[Image], Floats]


def compute(pixels: Image) -> Floats:
    return pixels[:, 0, 0, 0].astype(np.float32) - 100


def raising(pixels: Image) -> Floats:
    if (pixels == BAD).any():
        raise ArithmeticError("unlucky")
    return compute(pixels)


def not_finite(pixels: Image) -> Floats:
    return np.where(pixels[:, 0, 0, 0] == BAD, np.nan, compute(pixels)).astype(np.float32)


def too_few(pixels: Image) -> Floats:
    scores = compute(pixels)
    return scores[:-1] if (pixels == BAD).any() else scores


class FakeBackend:
    """Scores in the calling thread, once the gate is open."""

    name = "fake"
    input_size = SIZE
    concurrency = 1

    def __init__(self, compute: Compute = compute, *, max_batch: int = 4) -> None:
        self.compute = compute
        self.max_batch = max_batch
        self.shapes: tuple[int, ...] = (1, max_batch)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.threads: set[str] = set()
        self.batches: list[list[int]] = []
        self.closed = False

    def fit(self, waiting: int) -> int:
        return waiting

    def start(self, pixels: Image, done: Done) -> None:
        self.entered.set()
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(PATIENCE_S)
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        try:
            result: Floats | Exception = self.compute(pixels)
        except ArithmeticError as error:
            result = error
        done(result)

    def close(self) -> None:
        self.closed = True


class PooledBackend(FakeBackend):
    """Scores on threads of its own, several batches at once."""

    concurrency = 3

    def __init__(self, compute: Compute = compute, *, max_batch: int = 4) -> None:
        super().__init__(compute, max_batch=max_batch)
        self._pool = ThreadPoolExecutor(self.concurrency)
        self._lock = threading.Lock()
        self._under_way = 0

    def start(self, pixels: Image, done: Done) -> None:
        def count_off(result: Floats | Exception) -> None:
            with self._lock:
                self._under_way -= 1
            done(result)

        with self._lock:
            self._under_way += 1
            assert self._under_way <= self.concurrency
        self._pool.submit(super().start, pixels, count_off)

    def close(self) -> None:
        with self._lock:
            assert self._under_way == 0, "closed with work in flight"
        super().close()
        self._pool.shutdown()


class ThrowingBackend(FakeBackend):
    """Its `start` raises the error instead of passing it to `done`."""

    def start(self, pixels: Image, done: Done) -> None:
        done(self.compute(pixels))


KINDS = [FakeBackend, PooledBackend, ThrowingBackend]


def held(backend: FakeBackend, engine: Engine) -> Future[Floats]:
    """Keeps the backend busy with a first batch, so that later crops wait together."""
    backend.gate.clear()
    first = engine.submit(crops(0))
    assert backend.entered.wait(PATIENCE_S)
    return first


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def engine(backend: FakeBackend) -> Iterator[Engine]:
    with Engine(backend, max_delay_s=0.0) as engine:
        yield engine
        backend.gate.set()


def test_scores_come_back_in_the_order_of_the_crops(engine: Engine) -> None:
    values = range(1, 12)
    assert engine.submit(crops(*values)).result(PATIENCE_S).tolist() == right(*values)


def test_crops_of_several_clips_share_a_batch(backend: FakeBackend, engine: Engine) -> None:
    held(backend, engine)
    one, two = engine.submit(crops(1, 2)), engine.submit(crops(3, 4))
    backend.gate.set()
    assert one.result(PATIENCE_S).tolist() == right(1, 2)
    assert two.result(PATIENCE_S).tolist() == right(3, 4)
    assert backend.batches == [[0], [1, 2, 3, 4]]


def test_a_request_larger_than_a_batch_is_answered_as_one(backend: FakeBackend, engine: Engine) -> None:
    held(backend, engine)
    answer = engine.submit(crops(*range(1, 11)))
    backend.gate.set()
    assert answer.result(PATIENCE_S).tolist() == right(*range(1, 11))
    assert [len(batch) for batch in backend.batches] == [1, 4, 4, 2]


def test_no_crops_are_answered_at_once(engine: Engine) -> None:
    assert engine.submit(crops()).result(0).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", [raising, not_finite, too_few])
def test_a_bad_crop_fails_alone(kind: type[FakeBackend], fault: Compute) -> None:
    backend = kind(fault)
    with Engine(backend, max_delay_s=60.0) as engine:
        # Four crops of three clips fill one batch.
        good, bad, other = engine.submit(crops(1, 2)), engine.submit(crops(BAD)), engine.submit(crops(3))
        assert good.result(PATIENCE_S).tolist() == right(1, 2)
        assert other.result(PATIENCE_S).tolist() == right(3)
        with pytest.raises(ScoringError, match="fake"):
            bad.result(PATIENCE_S)
        after = engine.submit(crops(5, 6, 7, 8))
        assert after.result(PATIENCE_S).tolist() == right(5, 6, 7, 8)
        assert engine.stats().failed == 1


def test_the_error_has_the_backend_s_message(engine: Engine, backend: FakeBackend) -> None:
    backend.compute = raising
    with pytest.raises(ScoringError, match="unlucky"):
        engine.submit(crops(BAD)).result(PATIENCE_S)


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (crops(1).astype(np.float32), "float32"),
        (crops(1)[..., :1], r"\[1, 2, 2, 1\]"),
        (crops(1)[:, :1], r"\[1, 1, 2, 3\]"),
        (crops(1)[0], r"\[2, 2, 3\]"),
    ],
)
def test_invalid_crops_are_refused(engine: Engine, pixels: Image, named: str) -> None:
    with pytest.raises(ValueError, match=rf"uint8 \[N, 2, 2, 3\].*{named}"):
        engine.submit(pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_close_scores_waiting_crops(kind: type[FakeBackend]) -> None:
    backend = kind()
    engine = Engine(backend, max_delay_s=3600.0)
    waiting = [engine.submit(crops(value)) for value in range(7)]
    engine.close()
    assert [future.result(0).tolist() for future in waiting] == [right(value) for value in range(7)]
    assert backend.closed
    with pytest.raises(QueueClosedError):
        engine.submit(crops(1))
    engine.close()


def test_the_warm_up_scores_each_shape_on_the_thread_that_serves() -> None:
    backend = FakeBackend()
    backend.shapes = (1, 2, 4)
    with Engine(backend, warm_up=True) as engine:
        engine.ready()
        assert [len(batch) for batch in backend.batches] == [1, 2, 4]
        assert engine.submit(crops(1)).result(PATIENCE_S).tolist() == right(1)
        assert engine.stats().crops == 1, "crops of the warm-up are not counted"
        assert len(backend.threads) == 1
    assert backend.threads != {threading.current_thread().name}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault", [lambda pixels: compute(pixels) * np.nan, lambda pixels: compute(pixels)[:-1], raising]
)
def test_a_warm_up_that_fails_is_reported(
    kind: type[FakeBackend], fault: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.pipeline.scoring.test_engine.BAD", 255)
    with Engine(kind(fault), warm_up=True) as engine, pytest.raises(ScoringError, match="warm-up"):
        engine.ready()


def test_close_waits_for_retried_crops() -> None:
    backend = PooledBackend(raising)
    engine = Engine(backend, max_delay_s=3600.0)
    waiting = [engine.submit(crops(value)) for value in (1, BAD, 2, BAD, 3)]
    engine.close()
    assert [future.exception(0) is not None for future in waiting] == [False, True, False, True, False]


def test_submit_blocks_while_the_queue_is_full() -> None:
    backend = FakeBackend(max_batch=2)
    with Engine(backend, max_delay_s=0.0, queue_crops=2) as engine, ThreadPoolExecutor(1) as pool:
        held(backend, engine)
        blocked = pool.submit(engine.submit, crops(1, 2, 3))
        while engine.stats().waiting < 2:
            pass
        assert not blocked.done()
        backend.gate.set()
        assert blocked.result(PATIENCE_S).result(PATIENCE_S).tolist() == right(1, 2, 3)


def test_the_backend_says_how_many_crops_fit() -> None:
    class Pairs(FakeBackend):
        def fit(self, waiting: int) -> int:
            return 2 if waiting >= 2 else 1

    backend = Pairs()
    with Engine(backend, max_delay_s=0.0) as engine:
        held(backend, engine)
        answer = engine.submit(crops(1, 2, 3))
        backend.gate.set()
        assert answer.result(PATIENCE_S).tolist() == right(1, 2, 3)
    assert backend.batches == [[0], [1, 2], [3]]


def test_counters(backend: FakeBackend, engine: Engine) -> None:
    backend.compute = not_finite
    first = held(backend, engine)
    second = engine.submit(crops(1, BAD, 2))
    stats = engine.stats()
    assert (stats.waiting, stats.crops, stats.batches, stats.failed) == (3, 0, 0, 0)
    assert stats.oldest_age_s > 0
    backend.gate.set()
    first.result(PATIENCE_S)
    assert isinstance(second.exception(PATIENCE_S), ScoringError)
    engine.close()
    stats = engine.stats()
    assert (stats.waiting, stats.crops, stats.batches, stats.failed) == (0, 4, 2, 1)
    assert stats.oldest_age_s == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_each_get_their_own_scores(kind: type[FakeBackend]) -> None:
    def clip(first: int) -> bool:
        requests = [[first, first + n % 3, first + 1] for n in range(40)]
        futures = [scorer.submit(crops(*values)) for values in requests]
        return all(
            future.result(PATIENCE_S).tolist() == right(*values)
            for future, values in zip(futures, requests, strict=True)
        )

    with Engine(kind(max_batch=5), max_delay_s=0.0) as scorer, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(clip, range(8)))


@given(
    requests=st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=8),
    max_batch=st.integers(1, 5),
    kind=st.sampled_from(KINDS),
    fault=st.sampled_from([raising, not_finite, too_few]),
)
def test_a_request_fails_if_and_only_if_it_holds_a_bad_crop(
    requests: list[list[int]], max_batch: int, kind: type[FakeBackend], fault: Compute
) -> None:
    with Engine(kind(fault, max_batch=max_batch), max_delay_s=0.0) as engine:
        futures = [engine.submit(crops(*values)) for values in requests]
    for values, future in zip(requests, futures, strict=True):
        if BAD in values:
            assert isinstance(future.exception(0), ScoringError)
        else:
            assert future.result(0).tolist() == right(*values)
