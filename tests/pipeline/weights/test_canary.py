"""A canary from its announcement to its end, in Redis and by command."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from click.testing import Result
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.contracts import ACTIVE_KEY, CANARY_KEY, Outcome, Verdict, arms_key
from pipeline.weights.announced import ActiveWeights, AnnouncementError, ChangedMeanwhileError
from pipeline.weights.canary import Announced, Canaries, CountersError, NoCanaryError
from pipeline.weights.registry import Registry
from pipeline.weights.shadow import Differences
from tests.pipeline.records import record

OLD, NEW = "a" * 64, "b" * 64


@pytest.fixture
def active(announcements: redis.Redis) -> ActiveWeights:
    found = ActiveWeights(announcements)
    found.announce(sha256=OLD, name="old", uri="u", forced=False, replacing=None)
    return found


@pytest.fixture
def canaries(announcements: redis.Redis, active: ActiveWeights) -> Canaries:
    found = Canaries(announcements)
    begin(found, active)
    return found


def begin(canaries: Canaries, active: ActiveWeights, sha256: str = NEW) -> None:
    now = active.read()
    assert now is not None
    canaries.begin(sha256=sha256, name="new", uri="u", share=0.1, tolerance=0.02, beside=now, forced=False)


def verdict(sha256: str, label: str | None = "real", outcome: Outcome = Outcome.SCORED) -> Verdict:
    return record(outcome=outcome, label=label, weights_sha256=[sha256])


def fill(canaries: Canaries, announced: Announced, fakes: int, of: int, sha256: str) -> list[str]:
    each = [verdict(sha256, "fake" if number < fakes else "real") for number in range(of)]
    return [why for found in each if (why := canaries.count(announced, found))]


def test_verdicts_are_counted_in_their_arm(canaries: Canaries) -> None:
    announced = canaries.read()
    assert (announced.canary.previous, announced.canary.share) == (OLD, 0.1)
    assert fill(canaries, announced, 1, 5, NEW) == fill(canaries, announced, 2, 20, OLD) == []
    canaries.count(announced, verdict(NEW, None, Outcome.NO_FACE))
    canaries.count(announced, verdict(NEW, None, Outcome.MODEL_ERROR))
    canaries.count(announced, verdict("c" * 64))
    arms = canaries.arms(announced.canary)
    assert (arms.canary.videos, arms.canary.fake, arms.canary.real, arms.canary.failed) == (7, 1, 4, 1)
    assert (arms.active.videos, arms.active.fake, arms.active.scored) == (20, 2, 20)
    canaries.compared(announced.canary, Differences(64, 0.01, 0.03, 0.2))
    assert canaries.arms(announced.canary).shadow == {"crops": 64, "mean": 0.01, "p95": 0.03, "max": 0.2}


def test_an_alarm_ends_the_canary_once(canaries: Canaries, active: ActiveWeights) -> None:
    announced = canaries.read()
    fill(canaries, announced, 5, 100, OLD)
    (why,) = fill(canaries, announced, 60, 60, NEW)
    assert "scored videos are called fake" in why
    with pytest.raises(NoCanaryError):
        canaries.read()
    assert canaries.arms(announced.canary).ended == why
    now = active.read()
    assert now is not None
    assert now.announcement.sha256 == OLD
    begin(canaries, active)
    again = canaries.read()
    assert canaries.arms(again.canary).canary.videos == 0, "another try begins at 0"
    assert not canaries.end(announced, "late"), "an alarm of the first try does not end the second"
    assert canaries.read() == again


def test_other_active_weights_end_it(canaries: Canaries, active: ActiveWeights, announcements: redis.Redis) -> None:
    stale = active.read()
    assert stale is not None
    active.announce(sha256="c" * 64, name="other", uri="u", forced=False, replacing=stale)
    assert announcements.get(CANARY_KEY) is None
    with pytest.raises(ChangedMeanwhileError):
        canaries.begin(sha256=NEW, name="new", uri="u", share=0.1, tolerance=0.02, beside=stale, forced=False)
    begin(canaries, active)
    active.roll_back()
    assert announcements.get(CANARY_KEY) is None


def test_an_unreadable_canary_is_an_error(announcements: redis.Redis) -> None:
    announcements.set(CANARY_KEY, b'{"schema": 1, "share": 2}')
    with pytest.raises(AnnouncementError, match="not a canary of schema 1"):
        Canaries(announcements).read()


def test_garbage_in_redis_is_named_and_can_be_removed(
    canaries: Canaries, active: ActiveWeights, announcements: redis.Redis, redis_url: str
) -> None:
    announced = canaries.read()
    key = arms_key(NEW)
    for name, value in (("canary:videos", "many"), ("shadow:mean", "x"), ("active:fake", b"\xff")):
        announcements.delete(key)
        announcements.hset(key, name, value)
        with pytest.raises(CountersError, match=f"{key}: not the counters of a canary"):
            canaries.count(announced, verdict(NEW))
    announcements.delete(key)
    announcements.hset(key, "shadow:crops", "8")
    assert canaries.arms(announced.canary).shadow == {}
    announcements.set(key, "no hash")
    assert command(redis_url, "status").exit_code == 1
    assert command(redis_url, "end").exit_code == 0
    assert announcements.get(CANARY_KEY) is None
    announcements.set(CANARY_KEY, "nonsense")
    assert command(redis_url, "accept").exit_code == 1
    done = command(redis_url, "end")
    assert (done.exit_code, "not a canary of schema 1" in done.output) == (0, True)
    assert announcements.get(CANARY_KEY) is None


def test_accepting_takes_the_canary_that_was_looked_at_and_its_file(
    canaries: Canaries, active: ActiveWeights, redis_url: str, tmp_path: Path
) -> None:
    announced, now = canaries.read(), active.read()
    assert now is not None
    registry = Registry(str(tmp_path / "registry"), tmp_path / "cache")
    missing = command(redis_url, "accept", "--force", "--registry", registry.uri)
    assert (missing.exit_code, f"has no weights {NEW}" in missing.output) == (1, True)
    canaries.end(announced, "an alarm")
    with pytest.raises(ChangedMeanwhileError):
        active.announce(sha256=NEW, name="new", uri="u", forced=False, replacing=now, canary=announced.raw)
    again = active.read()
    assert again == now


def command(redis_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(build(["canary"]), ["canary", *arguments, "--redis", redis_url])


def test_by_command_it_is_shown_accepted_and_ended(
    canaries: Canaries, active: ActiveWeights, announcements: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    announced = canaries.read()
    fill(canaries, announced, 1, 30, NEW)
    fill(canaries, announced, 9, 270, OLD)
    shown = command(redis_url, "status").output.splitlines()
    assert shown[0] == f"new, sha256 {NEW}, judges 10.0% of the videos"
    assert shown[2:] == [
        "canary: 30 videos, 0 errors; 30 scored: 1 fake, 0 inconclusive, 29 real",
        "active: 270 videos, 0 errors; 270 scored: 9 fake, 0 inconclusive, 261 real",
    ]
    few = command(redis_url, "accept")
    assert (few.exit_code, "30 videos were judged by the canary, 200 are needed" in few.output) == (3, True)
    done = command(redis_url, "accept", "--videos", "30")
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, f"active: new, sha256 {NEW}")
    now = active.read()
    assert now is not None
    assert (now.announcement.sha256, now.announcement.previous) == (NEW, OLD)
    for name in ("status", "accept", "end"):
        assert command(redis_url, name).exit_code == 3
    begin(canaries, active, "c" * 64)
    assert command(redis_url, "end", "--why", "no longer\nwanted").exit_code == 0
    last = command(redis_url, "status")
    assert (last.exit_code, last.output.splitlines()[-1]) == (3, "ended: no longer\\u000awanted")
    assert announcements.get(CANARY_KEY) is None
    assert command("redis://127.0.0.1:1/0", "status").exit_code == 1
    assert announcements.get(ACTIVE_KEY) is not None
