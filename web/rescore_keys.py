"""What Redis has of rescored videos: written after the database, and deleted with the video or the run."""

from __future__ import annotations

from pipeline.contracts import Verdict
from pipeline.results.rescored import RescoredStore
from web.database import Database
from web.rescores import RescoreError, Run

_ORPHANS = "FROM rescore_keys WHERE NOT EXISTS (SELECT 1 FROM videos WHERE id = rescore_keys.video)"
# A record may be there although it is not marked: the process ended in between.
_IN_REDIS = (
    "FROM rescores AS r JOIN videos AS v ON v.n = r.video JOIN rescore_keys AS k ON k.video = v.id "
    "WHERE r.run = ? AND r.record IS NOT NULL"
)


class RescoredKeys:
    """The rescored records of a database in Redis. Safe to share between threads.

    Args:
        database: of the service.
        store: Redis.

    Raises:
        redis.RedisError: from every method: Redis does not answer; repeating the call is safe.
    """

    def __init__(self, database: Database, store: RescoredStore) -> None:
        self._database, self._store = database, store

    def publish(self, run: Run) -> int:
        """Store all records of a run that are not there yet; returns their number."""
        with self._database.write() as rows:
            rows.execute(
                "INSERT OR IGNORE INTO rescore_keys (video) SELECT v.id FROM rescores AS r "
                "JOIN videos AS v ON v.n = r.video WHERE r.run = ? AND r.record IS NOT NULL",
                (run.n,),
            )
        query = "SELECT video FROM rescores WHERE run = ? AND record IS NOT NULL AND in_redis = 0"
        found = [row["video"] for row in self._database.read().execute(query, (run.n,)).fetchall()]
        for n in found:
            self.publish_one(run, n)
        return len(found)

    def publish_one(self, run: Run, n: int) -> None:
        """Store the record of a video, whose id is in `rescore_keys`; without effect if it is there or was deleted.

        Args:
            run: it.
            n: number of the video.
        """
        self._store.ping()  # before the transaction, which others wait for
        # Within it, the video cannot be deleted before its key is there to be deleted, too.
        with self._database.write() as rows:
            row = rows.execute(
                "UPDATE rescores SET in_redis = 1 WHERE run = ? AND video = ? AND in_redis = 0 AND record IS NOT NULL "
                "RETURNING record",
                (run.n, n),
            ).fetchone()
            if row is not None:
                self._store.keep(run.name, Verdict.model_validate_json(row["record"]))

    def forget_deleted(self) -> int:
        """Delete what Redis has of videos that are deleted; returns their number. It asks Redis only if there are."""
        found = [row["video"] for row in self._database.read().execute(f"SELECT video {_ORPHANS}").fetchall()]
        for id_ in found:
            self._store.delete(id_)
            with self._database.write() as rows:
                rows.execute("DELETE FROM rescore_keys WHERE video = ?", (id_,))
        return len(found)

    def drop(self, run: Run) -> None:
        """Delete what Redis has of a run; its rows are deleted after that."""
        found = self._database.read().execute(f"SELECT v.id {_IN_REDIS}", (run.n,))
        self._store.drop(run.name, [row["id"] for row in found.fetchall()])


def check_not_in_redis(database: Database, run: Run) -> None:
    """Return if a run can be dropped without Redis.

    Raises:
        RescoreError: some of its records are there.
    """
    (count,) = database.read().execute(f"SELECT count(*) {_IN_REDIS}", (run.n,)).fetchone()
    if count:
        raise RescoreError(f"{count} records of run {run.name} are in Redis, too: set UNMASK_REDIS, or give --redis")
