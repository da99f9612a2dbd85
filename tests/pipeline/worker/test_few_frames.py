"""A task with adaptive sampling; in a module of its own, since any worker of the group may take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.checkpoint_info import Thresholds
from pipeline.contracts import Adapted, Label
from pipeline.results.store import VerdictStore
from pipeline.scan import Scanner
from pipeline.telemetry import Metrics
from pipeline.transport.consumer import TaskConsumer
from pipeline.transport.kafka import Publisher
from pipeline.weights.leases import Scanners
from pipeline.worker.access import UriAllow
from pipeline.worker.message import Service
from tests import media
from tests.pipeline.quick import QuickNetwork
from tests.pipeline.worker.serving import judged, serving, task


def test_a_task_may_ask_for_few_frames(
    bootstrap: str,
    scanner: Scanner,
    store: VerdictStore,
    publisher: Publisher,
    root: Path,
    network: QuickNetwork,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = root / "talk.mp4"
    media.make_clip(path, seconds=20, fps=10, size=(320, 240), face_px=(90, 100))
    monkeypatch.setattr(network, "log_odds", lambda pixels: np.full(len(pixels), -4.0, np.float32))
    thresholds = Thresholds(0.01, (0.97,) * 8, (0.3,) * 8)
    scanners = Scanners(replace(scanner, thresholds=thresholds))
    allow = UriAllow.parse(f"file://{root}")

    def deciding(consumer: TaskConsumer) -> Service:
        return Service(scanners, store, publisher, consumer, Metrics(), allow, max_attempts=3, retry_wait_s=0.01)

    with serving(bootstrap, deciding):
        few = judged(task(path, sampling="fps=2,adaptive"), publisher, store)
        all_ = judged(task(path, sampling="fps=2"), publisher, store)
    assert (few.label, few.frames_sampled, few.provenance.sampling) == (Label.REAL, 5, "fps=2,adaptive")
    assert few.adapted == Adapted(early=True, looked_at=5, planned=41)
    assert (all_.label, all_.frames_sampled, all_.adapted) == (Label.REAL, 40, None)
