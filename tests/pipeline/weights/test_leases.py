"""A clip keeps its scanner to the end; the engine closes with the last clip, and counters never decrease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pipeline.faces.create import create_detector
from pipeline.scan import Scanner
from pipeline.scoring.batcher import QueueClosedError
from pipeline.scoring.engine import Engine
from pipeline.types import Image
from pipeline.video.sampling import Even
from pipeline.video.sandbox import DecodeServer
from pipeline.weights.leases import Scanners
from tests.pipeline.quick import SPEC, QuickNetwork
from tests.pipeline.records import PROVENANCE

CROPS: Image = np.zeros((3, SPEC.size, SPEC.size, 3), np.uint8)


@pytest.fixture
def scanner(decode_server: DecodeServer) -> Scanner:
    return Scanner(Engine(QuickNetwork()), SPEC, create_detector("mtcnn"), decode_server, Even(2), PROVENANCE)


@pytest.fixture
def scanners(scanner: Scanner) -> Iterator[Scanners]:
    with Scanners(scanner) as scanners:
        yield scanners


def another(scanner: Scanner, number: int) -> Scanner:
    provenance = scanner.provenance.model_copy(update={"weights_sha256": [f"{number:064x}"]})
    return replace(scanner, engine=Engine(QuickNetwork()), provenance=provenance)


def is_open(scanner: Scanner) -> bool:
    try:
        scanner.engine.submit(CROPS).result(30)
    except QueueClosedError:
        return False
    return True


def test_a_swap_affects_later_clips_only(scanner: Scanner, scanners: Scanners) -> None:
    new = another(scanner, 1)
    with scanners.current() as first, scanners.current() as same:
        scanners.swap(new)
        with scanners.current() as later:
            assert (first, same, later) == (scanner, scanner, new)
        assert is_open(first)
    assert not is_open(scanner)
    assert is_open(new)
    assert scanners.provenance.weights_sha256 == new.provenance.weights_sha256


def test_an_unused_engine_closes_at_once(scanner: Scanner, scanners: Scanners) -> None:
    with scanners.current():
        pass
    scanners.swap(another(scanner, 1))
    assert not is_open(scanner)


def test_several_swaps_during_one_clip(scanner: Scanner, scanners: Scanners) -> None:
    found = [scanner, *(another(scanner, number) for number in range(1, 4))]
    with ExitStack() as held:
        for before, after in pairwise(found):
            if before is not found[1]:
                held.enter_context(scanners.current())
            scanners.swap(after)
        assert [is_open(each) for each in found] == [True, False, True, True]
    assert [is_open(each) for each in found] == [False, False, False, True]


def test_counters_continue_over_swaps(scanner: Scanner, scanners: Scanners) -> None:
    with scanners.current() as old:
        scanners.swap(another(scanner, 1))
        assert is_open(old)
        with scanners.current() as new:
            assert is_open(new)
        assert scanners.stats().crops == 6
    assert scanners.stats().crops == 6
    assert scanners.stats().batches >= 2
    assert scanners.stats().failed == 0


def test_close_closes_all_engines(scanner: Scanner) -> None:
    new = another(scanner, 1)
    with Scanners(scanner) as scanners, scanners.current():
        scanners.swap(new)
    assert not is_open(scanner)
    assert not is_open(new)
