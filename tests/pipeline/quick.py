"""A network that takes no time, for tests of the code around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.spec import InputSpec
from pipeline.faces.create import create_detector
from pipeline.faces.detector import FaceDetector
from pipeline.scan import Scanner
from pipeline.scoring.backend import Done
from pipeline.scoring.engine import Engine
from pipeline.types import Floats, Image
from pipeline.video.sampling import Sampling
from pipeline.video.sandbox import DecodeServer
from tests.pipeline.records import PROVENANCE

SPEC = InputSpec(size=64)


class QuickNetwork:
    """Gives every crop the same log-odds."""

    name = "quick"
    input_size = SPEC.size
    max_batch = 4
    shapes = (4,)
    concurrency = 1

    def __init__(self) -> None:
        self.log_odds: Callable[[Image], Floats] = lambda pixels: np.full(len(pixels), 2.0, np.float32)

    def fit(self, waiting: int) -> int:
        return waiting

    def start(self, pixels: Image, done: Done) -> None:
        done(self.log_odds(pixels))

    def close(self) -> None:
        """Nothing to free."""


@contextmanager
def quick_scanner(
    server: DecodeServer,
    sampling: Sampling,
    *,
    network: QuickNetwork | None = None,
    detector: FaceDetector | None = None,
    **others: Any,
) -> Iterator[Scanner]:
    """A scanner with this network, and MTCNN unless another face detector is given.

    Args:
        server: for decoding.
        sampling: of its clips.
        network: None: one that gives every crop the same log-odds.
        detector: of faces.
        others: fields of the scanner.
    """
    with Engine(network or QuickNetwork()) as engine:
        yield Scanner(
            engine=engine,
            spec=SPEC,
            detector=detector or create_detector("mtcnn"),
            server=server,
            sampling=sampling,
            provenance=PROVENANCE.model_copy(update={"decoder": "none", "source_sha256": None}),
            **others,
        )
