"""The announcement of weights: atomic changes, history for a rollback, no lost updates."""

from __future__ import annotations

import json

import pytest
import redis
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.contracts import ACTIVE_KEY, CHANGED_CHANNEL, HISTORY_KEY
from pipeline.weights.announced import (
    HISTORY_LENGTH,
    ActiveWeights,
    AnnouncementError,
    ChangedMeanwhileError,
    NothingBeforeError,
)


def sha256(number: int) -> str:
    return f"{number:064x}"


def announce(active: ActiveWeights, number: int, *, forced: bool = False) -> None:
    active.announce(
        sha256=sha256(number), name=f"n{number}", uri=f"/r/weights/{number}", forced=forced, replacing=active.read()
    )


def test_an_announcement_is_stored_and_published_by_contract(announcements: redis.Redis) -> None:
    active = ActiveWeights(announcements, clock=lambda: 1.5)
    assert active.read() is None
    with announcements.pubsub(ignore_subscribe_messages=True) as changes:
        changes.subscribe(CHANGED_CHANNEL)
        changes.get_message(timeout=5)
        announce(active, 1)
        announce(active, 2, forced=True)
        heard = [changes.get_message(timeout=5)["data"] for _ in range(2)]
    stored = announcements.get(ACTIVE_KEY)
    assert heard[1] == stored
    assert json.loads(stored) == {
        "schema": 1,
        "sha256": sha256(2),
        "name": "n2",
        "uri": "/r/weights/2",
        "promoted_at": 1.5,
        "previous": sha256(1),
        "forced": True,
        "size_bytes": None,
        "graph": None,
    }
    assert json.loads(heard[0])["previous"] is None
    assert announcements.lrange(HISTORY_KEY, 0, -1) == [heard[0]]
    assert announcements.ttl(ACTIVE_KEY) == -1, "what workers use does not expire"


def test_each_rollback_goes_back_one_further(announcements: redis.Redis, redis_url: str) -> None:
    active = ActiveWeights(announcements)
    runner, app = CliRunner(), build(["rollback"])

    def back() -> tuple[int, str]:
        done = runner.invoke(app, ["rollback", "--redis", redis_url])
        return done.exit_code, done.output

    assert back()[0] == 3
    for number in range(1, 4):
        announce(active, number)
    assert back() == (0, f"active: n2, sha256 {sha256(2)}\n")
    assert back() == (0, f"active: n1, sha256 {sha256(1)}\n")
    now = active.read()
    assert now is not None
    assert (now.announcement.previous, now.announcement.uri) == (sha256(2), "/r/weights/1")
    code, message = back()
    assert (code, "no weights were active before these" in message) == (3, True)
    announce(active, 4)
    assert back()[1] == f"active: n1, sha256 {sha256(1)}\n"


def test_a_decision_on_an_old_state_changes_nothing(announcements: redis.Redis) -> None:
    active = ActiveWeights(announcements)
    announce(active, 1)
    seen = active.read()
    announce(active, 2)
    before = announcements.get(ACTIVE_KEY)
    for replacing in (seen, None):
        with pytest.raises(ChangedMeanwhileError):
            active.announce(sha256=sha256(3), name="late", uri="/r", forced=False, replacing=replacing)
    assert announcements.get(ACTIVE_KEY) == before
    assert announcements.llen(HISTORY_KEY) == 1


def test_repeating_a_call_changes_nothing_more(announcements: redis.Redis) -> None:
    active = ActiveWeights(announcements, clock=lambda: 2.0)
    for _ in range(2):
        active.announce(sha256=sha256(1), name="n", uri="/r", forced=False, replacing=None)
    assert announcements.llen(HISTORY_KEY) == 0


def test_the_history_is_bounded(announcements: redis.Redis) -> None:
    active = ActiveWeights(announcements)
    for number in range(HISTORY_LENGTH + 5):
        announce(active, number)
    assert announcements.llen(HISTORY_KEY) == HISTORY_LENGTH


@pytest.mark.parametrize("value", [b"nonsense", b'{"schema": 2}', b'{"schema": 1, "sha256": "short"}'])
def test_an_invalid_announcement_is_an_error(announcements: redis.Redis, value: bytes) -> None:
    announcements.set(ACTIVE_KEY, value)
    with pytest.raises(AnnouncementError, match="not an announcement of schema 1"):
        ActiveWeights(announcements).read()


def test_rollback_without_announcements_is_an_error(announcements: redis.Redis) -> None:
    with pytest.raises(NothingBeforeError):
        ActiveWeights(announcements).roll_back()
