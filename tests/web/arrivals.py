"""Judged videos in a service's database, without judging any: their records are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.clip_report import ClipReport
from pipeline.contracts import Label, Person, ScoredFace, SourceClass
from tests.pipeline.records import record
from web.database import Database
from web.keys import Keys, Role
from web.videos import Upload, Videos, new_id


class Arrivals:
    """Hands made videos in; several of a seed are the same each time.

    Args:
        folder: of the service, which does not run yet.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.database = Database(folder / "unmask.sqlite3")
        self.videos = Videos(self.database, lambda rows, owner, event, data: None)
        self.key = Keys(self.database).create("arrivals", Role.SUBMIT)[0].id

    def come(self, n: int, at_s: float, *, seed: int = 0, factor: float = 1.0, **changes: Any) -> list[str]:
        """Judge `n` videos that arrived at a time, with faces of 64 to 260 px times `factor`; returns their ids."""
        rng = np.random.default_rng(seed)
        return [self.one(at_s, record(f"{new_id()}.mp4", **_facts(rng, factor) | changes)) for _ in range(n)]

    def one(self, at_s: float, verdict: Any) -> str:
        """Judge a video with this record; returns its id."""
        video, _ = self.videos.accept(
            Upload(verdict.source, SourceClass.UPLOAD, uri=verdict.source), self.key, new_id()
        )
        self.videos.take()
        self.videos.finish(video.id, ClipReport(verdict))
        with self.database.write() as rows:
            # Each file is its own.
            rows.execute(
                "UPDATE videos SET created_s = ?, finished_s = ?, sha256 = NULL WHERE id = ?", (at_s, at_s, video.id)
            )
        return video.id

    def answer(self, id_: str, answer: str) -> None:
        """Close the review of a video."""
        with self.database.write() as rows:
            rows.execute("UPDATE videos SET round = 'closed', answer = ? WHERE id = ?", (answer, id_))


def _facts(rng: np.random.Generator, factor: float) -> dict[str, Any]:
    width_px = 130 * 2 ** rng.uniform(-1, 1) * factor
    quality = float(rng.beta(6, 2))
    probability = float(rng.beta(1, 6))
    face = {"index": 0, "track": 0, "probability": probability, "quality": quality}
    return {
        "probability": probability,
        "label": Label.REAL,
        "people": [Person(track=0, probability=probability, frames=8, first_s=0, last_s=4)],
        "frames": [ScoredFace(t_s=i / 2, box=(0, 0, width_px, 1.3 * width_px), **face) for i in range(8)],
    }
