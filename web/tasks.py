"""Which videos were submitted to workers, and whose records in Redis have to be deleted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.contracts import Outcome, SourceClass, State
from web.database import Database

# Kafka keeps a task for seven days by default: one that no worker has begun by then is lost.
TASK_S: Final = 7 * 86400.0
# If the service died so often while it made the pictures of a video, that is what killed it.
MAX_TRIES: Final = 3
# An inequality would not use the index.
_NOT_DONE: Final = f"state IN ('{State.QUEUED}', '{State.RUNNING}')"


@dataclass(frozen=True, slots=True)
class Task:
    """A video that was submitted.

    Attributes:
        id: of the video.
        state: of the video, as the service has it.
        submitted_s: Unix seconds; of a deleted video, when it was about to be.
        again: times that it was submitted again, because workers could not read it.
    """

    id: str
    state: State
    submitted_s: float
    again: int


class Tasks:
    """The submitted videos of a database. Safe to share between threads.

    A task is written down before it is sent, and stays until the record of a deleted video is deleted too.

    Args:
        database: it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def unsent(self, limit: int) -> list[str]:
        """Ids of videos to be submitted: uploads before archives, the oldest first."""
        rows = self._database.read().execute(
            "SELECT id FROM videos LEFT JOIN tasks ON tasks.video = videos.id "
            f"WHERE {_NOT_DONE} AND submitted_s IS NULL ORDER BY source_class = ?, n LIMIT ?",
            (SourceClass.ARCHIVE, limit),
        )
        return [row["id"] for row in rows]

    def intend(self, ids: Sequence[str]) -> None:
        """These are about to be sent: workers may have them from now on."""
        now_s = time.time()
        with self._database.write() as rows:
            rows.executemany(
                "INSERT INTO tasks (video, intended_s) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET intended_s = ?2",
                [(id_, now_s) for id_ in ids],
            )

    def submitted(self, ids: Sequence[str]) -> None:
        """Kafka has these."""
        now_s = time.time()
        with self._database.write() as rows:
            rows.executemany("UPDATE tasks SET submitted_s = ? WHERE video = ?", [(now_s, id_) for id_ in ids])

    def forget(self, id_: str, *, again: bool = False) -> None:
        """Let a video be submitted again.

        Args:
            id_: of the video.
            again: because workers could not read it.
        """
        with self._database.write() as rows:
            rows.execute("UPDATE tasks SET submitted_s = NULL, again = again + ? WHERE video = ?", (again, id_))

    def unfinished(self) -> list[Task]:
        """Submitted videos without a verdict, the oldest first."""
        return self._tasks(_NOT_DONE)

    def may_be_replaced(self) -> list[Task]:
        """Videos that ended as `model_error` a short while ago: an operator may have them judged again."""
        return self._tasks("outcome = ? AND finished_s > ?", Outcome.MODEL_ERROR, time.time() - TASK_S)

    def get(self, id_: str) -> Task | None:
        """The task of a video without a verdict; None: there is no such."""
        found = self._tasks(f"id = ? AND {_NOT_DONE}", id_)
        return found[0] if found else None

    def mirror(self, id_: str, state: State) -> bool:
        """Note how far the workers are with a video; returns whether that is new."""
        with self._database.write() as rows:
            changed = rows.execute(
                "UPDATE videos SET state = ?1, started_s = CASE WHEN ?1 = ?4 THEN ?2 ELSE started_s END, "
                "version = version + 1 WHERE id = ?3 AND state NOT IN (?1, ?5)",
                (state, time.time(), id_, State.RUNNING, State.DONE),
            ).rowcount
        return bool(changed)

    def orphans(self) -> list[Task]:
        """Tasks of deleted videos: what workers store of them has to be deleted."""
        rows = self._database.read().execute(
            "SELECT * FROM tasks WHERE NOT EXISTS (SELECT 1 FROM videos WHERE id = tasks.video)"
        )
        return [Task(row["video"], State.DONE, row["intended_s"], row["again"]) for row in rows]

    def remove(self, id_: str) -> None:
        """Nothing is left of a deleted video."""
        with self._database.write() as rows:
            rows.execute("DELETE FROM tasks WHERE video = ?", (id_,))

    def without_pictures(self) -> str | None:
        """The id of an uploaded video that was judged and has no pictures and print yet, the latest first."""
        row = (
            self._database.read()
            .execute(
                "SELECT id FROM tasks JOIN videos ON videos.id = tasks.video "
                f"WHERE tries_left > 0 AND state = '{State.DONE}' AND uri IS NULL ORDER BY finished_s DESC LIMIT 1"
            )
            .fetchone()
        )
        return None if row is None else str(row["id"])

    def begin_pictures(self, id_: str) -> int:
        """A video's pictures are about to be made: if the process dies meanwhile, that may be why.

        Returns:
            How many tries are left after this one.
        """
        self._set_tries(id_, "tries_left - 1")
        row = self._database.read().execute("SELECT tries_left FROM tasks WHERE video = ?", (id_,)).fetchone()
        return MAX_TRIES if row is None else int(row["tries_left"])

    def has_pictures(self, id_: str) -> bool:
        """Whether a judged video's pictures are made, as far as they can be."""
        row = self._database.read().execute("SELECT tries_left FROM tasks WHERE video = ?", (id_,)).fetchone()
        return row is None or row["tries_left"] <= 0

    def interrupt_pictures(self, id_: str) -> None:
        """They were not made, for a reason other than a crash."""
        self._set_tries(id_, "tries_left + 1")

    def end_pictures(self, id_: str) -> None:
        """They are made, as far as they can be."""
        self._set_tries(id_, "0")

    def new_pictures(self, id_: str) -> None:
        """A verdict has come: pictures have to be made for it."""
        self._set_tries(id_, str(MAX_TRIES))

    def _set_tries(self, id_: str, value: str) -> None:
        with self._database.write() as rows:
            rows.execute(f"UPDATE tasks SET tries_left = {value} WHERE video = ?", (id_,))

    def _tasks(self, where: str, *values: object) -> list[Task]:
        rows = self._database.read().execute(
            "SELECT id, state, submitted_s, again FROM videos JOIN tasks ON tasks.video = videos.id "
            f"WHERE submitted_s IS NOT NULL AND {where} ORDER BY n",
            values,
        )
        return [Task(row["id"], State(row["state"]), row["submitted_s"], row["again"]) for row in rows]
