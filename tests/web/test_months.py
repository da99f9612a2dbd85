"""Verdicts by month against what people decided, and when the weights were made."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.contracts import ACTIVE_KEY, Label, Outcome
from pipeline.settings import Settings
from pipeline.weights.age import DateSource, MadeWeights
from pipeline.weights.announced import ActiveWeights
from tests.pipeline.records import PROVENANCE, record
from tests.web.arrivals import Arrivals
from trainers.commands.drift import app
from web.drift import DAY_S, DriftOptions, DriftWatch
from web.months import auc, months
from web.weights import KnownWeights
from web.workers import Workers

NOW_S = time.time()
(WEIGHTS,) = PROVENANCE.weights_sha256


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_workers_weights_are_those_that_judged_or_were_announced(
    announcements: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    arrivals = Arrivals(tmp_path)
    clock = iter((NOW_S - 9 * DAY_S, NOW_S - 2 * DAY_S, NOW_S - DAY_S)).__next__
    active, replacing = ActiveWeights(announcements, clock=clock), None
    for sha256 in (WEIGHTS, "b" * 64):
        active.announce(sha256=sha256, name=sha256[:4], uri="/x", forced=False, replacing=replacing)
        replacing = active.read()
    workers = Workers(Settings(kafka="127.0.0.1:1", redis=redis_url))
    watch = DriftWatch(arrivals.database, DriftOptions(), lambda rows, owner, event, data: None)
    watch.announced = workers.announced
    watch.look(NOW_S)
    (found,) = watch.report().weights
    assert (found.sha256, found.name, found.source) == ("b" * 64, "bbbb", "announced")
    assert watch.report().age_s == pytest.approx(time.time() - NOW_S + 2 * DAY_S, abs=60)
    arrivals.come(1, NOW_S)
    watch.look(NOW_S)
    assert [each.sha256 for each in watch.report().weights] == [WEIGHTS], "they judged last"
    assert watch.report().age_s == pytest.approx(time.time() - NOW_S + 9 * DAY_S, abs=60)
    active.roll_back()  # a later promotion does not make weights younger
    watch.look(NOW_S)
    assert watch.report().age_s == pytest.approx(time.time() - NOW_S + 9 * DAY_S, abs=60)
    announcements.set(ACTIVE_KEY, b"{")
    watch.look(NOW_S)
    assert [each.sha256 for each in watch.report().weights] == [WEIGHTS]
    workers.close()
    arrivals.database.close()


def test_months_against_what_people_decided(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    january, may = (time.mktime((2026, month, 15, 12, 0, 0, 0, 0, 0)) for month in (1, 5))
    for at_s, right in ((january, 9), (may, 6)):
        for i in range(10):
            fake, real = (0.9, Label.FAKE) if i < right else (0.2, Label.INCONCLUSIVE), (0.1, Label.REAL)
            for answer, (probability, label) in (("fake", fake), ("real", real)):
                changes = {"probability": probability, "label": label}
                arrivals.answer(arrivals.one(at_s, record(f"{answer}{i}", **changes)), answer)
    arrivals.answer(arrivals.one(may, record("lost", Outcome.NO_FACE)), "real")
    arrivals.one(may, record("open"))
    automatic = arrivals.one(may, record("automatic"))
    with arrivals.database.write() as rows:
        rows.execute("UPDATE videos SET round = 'automatic', answer = 'fake' WHERE id = ?", (automatic,))
    known = KnownWeights(arrivals.database)
    known.note([MadeWeights(WEIGHTS, "mine", january - 3 * DAY_S, DateSource.ANNOUNCED)])
    known.note([MadeWeights(WEIGHTS, "mine", january - 10 * DAY_S, DateSource.CHECKPOINT)])
    known.note([MadeWeights(WEIGHTS, "mine", january, DateSource.ANNOUNCED)])
    arrivals.database.close()
    found = run("months", "--folder", tmp_path, "--json", "-")
    assert found.exit_code == 0, found.output
    later, earlier = json.loads(found.output)
    assert (earlier["month"], later["month"]) == ("2026-01", "2026-05")
    assert (later["fakes"], later["reals"], later["unscored"]) == (10, 10, 1)
    assert [later[f"fakes_{label}"]["hits"] for label in ("fake", "inconclusive", "real")] == [6, 4, 0]
    assert later["reals_fake"]["hits"] == 0
    assert earlier["age_s"] == pytest.approx(10 * DAY_S)
    assert later["auc"]["value"] == 1.0
    assert 0.8 < later["auc"]["low"] < 1 == later["auc"]["high"]
    assert "2026-05" in run("months", "--folder", tmp_path).output


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_the_interval_of_an_auc_is_around_it(fakes: list[float], reals: list[float]) -> None:
    found, mirrored = auc(fakes, reals), auc(reals, fakes)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert mirrored.low == pytest.approx(1 - found.high, abs=1e-9)


def test_months_without_reviews(tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    assert months(arrivals.database, KnownWeights(arrivals.database)) == []
    arrivals.database.close()
    assert run("months", "--folder", tmp_path).output == "no closed reviews\n"
