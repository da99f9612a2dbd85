"""Explains the scores of stored crops: one at a time, kept as long as the video."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any, Final

import structlog

from pipeline.contracts import Verdict
from pipeline.explain.explanation import explain
from pipeline.explain.face import FaceGoneError, ScoredFace, face_again
from pipeline.explain.picture import draw_map
from pipeline.portraits import FacePlace
from pipeline.scan import Scanner
from pipeline.sources import Source, SourceError
from pipeline.video.clip import DecodeError
from web.database import Database
from web.judging import Judge
from web.media import Media
from web.problems import Code, ProblemError, busy, not_found
from web.videos import Video

log = structlog.get_logger(__name__)

# Requests that may wait while one is computed; each takes some seconds of all cores.
MAX_WAITING: Final = 4
_RETRY_S: Final = 5.0
# Batches of other sizes add up in another order: up to .01 where a CPU computes in bf16, 1e-5 in f32.
_SAME_PROBABILITY: Final = 0.01
# Of SQLite.
_MAX_INTEGER: Final = 2**31


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation of a crop.

    Attributes:
        t_s: time of its frame.
        probability: of fake, as the record has it.
        facts: see `Explanation.facts`.
        picture: PNG of the map over the crop; None: it does not hold, so it is not shown.
    """

    t_s: float
    probability: float
    facts: dict[str, Any]
    picture: bytes | None


class Explainer:
    """Explains crops with the engine that judges. Safe to share between threads.

    Args:
        database: has the crops, and keeps explanations.
        media: the files, which frames are taken from again.
        judge: has the engine; None: workers have it, and nothing can be explained here.
    """

    def __init__(self, database: Database, media: Media, judge: Judge | None) -> None:
        self._database = database
        self._media = media
        self._judge = judge
        self._one = threading.Lock()
        self._places = threading.Semaphore(1 + MAX_WAITING)

    def explain(self, video: Video, track: int, n: int) -> Explained:
        """Explain the score of a crop, or return what was found before.

        Args:
            video: of the crop.
            track: of the person.
            n: number of the crop, as for `Videos.crop`.

        Raises:
            ProblemError: there is no such crop, or it cannot be explained, or too many wait.
        """
        row = self._crop(video, track, n)
        if (found := self._kept(row)) is not None:
            return found
        if self._judge is None:
            raise _conflict("workers judge the videos of this service: it has no network to explain scores with")
        if video.upload.uri is not None:
            raise _conflict("only the URI of this video was handed in: its frames cannot be read again")
        if row["place"] is None:
            raise _conflict("judged by an earlier version, which did not keep where the crops are: upload it again")
        if not self._places.acquire(blocking=False):
            raise busy(f"{MAX_WAITING} explanations are waiting", _RETRY_S)
        try:
            with self._one:
                # Another request may have asked for the same one.
                return self._kept(row) or self._explain(self._judge, video, row)
        finally:
            self._places.release()

    def moments_s(self, video: Video) -> dict[int, list[float]]:
        """Times of the frames of crops that can be explained, by person, in the order of their numbers, to the ms."""
        if self._judge is None or video.upload.uri is not None:
            return {}
        found: dict[int, list[float]] = {}
        query = "SELECT track, t_s FROM portraits WHERE video = ? ORDER BY track, i"
        for row in self._database.read().execute(query, (video.n,)):
            found.setdefault(row["track"], []).append(round(row["t_s"], 3))
        return found

    def _crop(self, video: Video, track: int, n: int) -> sqlite3.Row:
        row: sqlite3.Row | None = None
        if 0 <= track < _MAX_INTEGER and 0 <= n < _MAX_INTEGER:
            query = (
                "SELECT portraits.*, videos.record AS record FROM portraits JOIN videos ON videos.n = portraits.video "
                "WHERE video = ? AND track = ? ORDER BY i LIMIT 1 OFFSET ?"
            )
            row = self._database.read().execute(query, (video.n, track, n)).fetchone()
        if row is None:
            raise not_found("crop")
        return row

    def _kept(self, row: sqlite3.Row) -> Explained | None:
        query = "SELECT facts, picture FROM explanations WHERE video = ? AND track = ? AND i = ?"
        found = self._database.read().execute(query, (row["video"], row["track"], row["i"])).fetchone()
        if found is None:
            return None
        return Explained(row["t_s"], row["probability"], json.loads(found["facts"]), found["picture"])

    def _explain(self, judge: Judge, video: Video, row: sqlite3.Row) -> Explained:
        scanner = judge.scanner
        if scanner is None:
            raise ProblemError(503, Code.STARTING, "the networks are not loaded", {"Retry-After": "1"})
        record = Verdict.model_validate_json(row["record"])
        _check_weights(scanner, record)
        try:
            face = self._again(scanner, video, record, row)
            found = explain(face.hidden, len(face.picture), face.log_odds, says_fake=face.probability >= 0.5)
        except Exception as error:
            if judge.scanner is None:
                raise ProblemError(503, Code.STARTING, "the service is ending", {"Retry-After": "5"}) from error
            raise
        picture = draw_map(face.picture, found) if found.holds else None
        with self._database.write() as rows:
            try:
                rows.execute(
                    "INSERT INTO explanations (video, track, i, facts, picture) VALUES (?, ?, ?, ?, ?)",
                    (row["video"], row["track"], row["i"], json.dumps(found.facts()), picture),
                )
            except sqlite3.IntegrityError as error:
                raise not_found("video: it was deleted meanwhile") from error
        return Explained(row["t_s"], row["probability"], found.facts(), picture)

    def _again(self, scanner: Scanner, video: Video, record: Verdict, row: sqlite3.Row) -> ScoredFace:
        """The crop that the network saw, by the same score.

        Raises:
            ProblemError: it cannot be cut again, or has another score, or a store is away.
        """
        place = FacePlace.parse(row["place"])
        sha256 = record.provenance.source_sha256
        with self._media.local(video.id) as path:
            source = Source(str(path), given_id=video.id, is_path=True)
            try:
                face = face_again(scanner, source, place, t_s=row["t_s"], quality=row["quality"], sha256=sha256)
            except (FaceGoneError, SourceError, DecodeError) as error:
                text = str(error).replace(source.name, video.upload.name)
                raise _conflict(f"the crop cannot be taken from the file again: {text}") from error
        if abs(face.probability - row["probability"]) > _SAME_PROBABILITY:
            raise _conflict(
                f"the crop has probability {face.probability:.3f} now and {row['probability']:.3f} in the record: "
                "it was judged by another version or on another machine; upload the video again"
            )
        return face


def _check_weights(scanner: Scanner, record: Verdict) -> None:
    now, then = scanner.provenance, record.provenance
    if (now.weights_sha256, now.input_spec) != (then.weights_sha256, then.input_spec):
        raise _conflict(
            f"the video was judged with {then.model} (weights {_short(then.weights_sha256)}), and this service has "
            f"{now.model} ({_short(now.weights_sha256)}) now: another network's map would not explain the score"
        )


def _short(hashes: list[str]) -> str:
    return "+".join(each[:8] for each in hashes)


def _conflict(detail: str) -> ProblemError:
    return ProblemError(409, Code.CONFLICT, detail)
