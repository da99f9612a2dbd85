"""Tells those who asked for verdicts that other weights give another label: webhooks, once for each run and video."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from web import audit
from web.audit import Kind
from web.database import Database
from web.rescore_diff import is_changed, ordered
from web.rescores import Judged, Rescored, RescoreError, Rescores, Run
from web.webhooks import Notify, WebhookEvent, receivers


@dataclass(frozen=True, slots=True)
class Notices:
    """What would be sent.

    Attributes:
        videos: with another label than before, of which nobody has heard.
        messages: how many, over all webhooks.
        without: how many of the videos have no webhook that wants to know.
        sent: how many videos have theirs.
        replaced: how many were judged again since: their owners heard of that.
    """

    videos: Sequence[Rescored]
    messages: int
    without: int
    sent: int
    replaced: int


def check_due(run: Run, after_s: float, now_s: float) -> None:
    """Return if notices of a run may be sent.

    Args:
        run: it.
        after_s: seconds from the end of the run, in which it can be dropped.
        now_s: Unix seconds.

    Raises:
        RescoreError: it has not ended, or not long enough ago.
    """
    if run.ended_s is None:
        raise RescoreError(f"run {run.name} has not ended: the same command goes on with it")
    if (left_s := run.ended_s + after_s - now_s) > 0:
        raise RescoreError(
            f"run {run.name} can be dropped for another {left_s / 3600:.1f} h (--after {after_s / 3600:g}h); "
            "notices are sent after that"
        )


def notices_of(database: Database, run: Run) -> Notices:
    """What would be sent now."""
    found = [each for each in ordered(Rescores(database).of_run(run)) if is_changed(each)]
    open_ = [each for each in found if not each.is_notified and not each.is_replaced]
    rows = database.read()
    counts = [len(receivers(rows, each.owner, WebhookEvent.RESCORED)) for each in open_]
    return Notices(
        open_,
        sum(counts),
        sum(not count for count in counts),
        sum(each.is_notified for each in found),
        sum(each.is_replaced and not each.is_notified for each in found),
    )


def send(database: Database, notify: Notify, run: Run, videos: Sequence[Rescored]) -> int:
    """Store the messages, each in the transaction that marks its video; returns the number of videos.

    A video that was deleted, judged again or notified meanwhile is passed over.

    Args:
        database: it.
        notify: stores a message to webhooks.
        run: of which notices are sent.
        videos: see `Notices`.
    """
    count = 0
    for video in videos:
        with database.write() as rows:
            marked = rows.execute(
                "UPDATE rescores SET notified_s = ? WHERE run = ? AND notified_s IS NULL AND video = "
                "(SELECT n FROM videos WHERE id = ? AND finished_s IS rescores.before_s)",
                (time.time(), run.n, video.video),
            ).rowcount
            if not marked:
                continue
            data = _data(video)
            notify(rows, video.owner, WebhookEvent.RESCORED, data)
            words = {"before": video.before.word, "after": video.after.word}
            audit.append(rows, Kind.NOTIFIED, video=video.video, run=run.name, **words)
        count += 1
    with database.write() as rows:
        rows.execute("UPDATE rescore_runs SET notified_s = coalesce(notified_s, ?) WHERE n = ?", (time.time(), run.n))
    return count


def _data(video: Rescored) -> dict[str, Any]:
    return {
        "video": video.video,
        "name": video.name,
        **_short(video.after),
        "before": _short(video.before),
        "run": video.run,
    }


def _short(judged: Judged) -> dict[str, Any]:
    return {"outcome": judged.outcome, "label": judged.label, "probability": judged.probability}
