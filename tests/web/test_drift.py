"""Freshness: drift of what arrives, the age of weights, verdicts by month; commands, API, messages and page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from models.zoo import default_detector, find_entry
from pipeline.drift.reference import read_reference
from pipeline.weights.age import DateSource, MadeWeights
from pipeline.worker.access import UriAllow
from tests.browser import sign_in
from tests.pipeline.records import PROVENANCE, record
from tests.web.arrivals import Arrivals
from tests.web.served import Served, serving, until
from tests.web.test_accessibility import found as faults
from trainers.commands.drift import app
from web.drift import DAY_S, DriftOptions, DriftWatch
from web.keys import Keys, Role
from web.webhooks import WebhookEvent, Webhooks

NOW_S = time.time()
(WEIGHTS,) = PROVENANCE.weights_sha256


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service that judged 90 videos twenty days ago, and 50 now, with faces half as wide."""
    arrivals = Arrivals(folder := tmp_path_factory.mktemp("drift"))
    arrivals.come(90, NOW_S - 20 * DAY_S, seed=1)
    arrivals.come(50, NOW_S - DAY_S, seed=2, factor=0.5)
    arrivals.database.close()
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> Path:
    """Of the first 90."""
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW_S - 10 * DAY_S))
    made = run("reference", "--service", folder, "--until", day, "--out", folder / "reference.json")
    assert made.exit_code == 0, made.output
    assert "face_width: 90 videos" in made.output
    return folder / "reference.json"


def test_check_and_sample(folder: Path, reference: Path) -> None:
    found = run("check", "--reference", reference, "--folder", folder)
    assert found.exit_code == 3, found.output
    assert "faces are smaller than in the reference: median" in found.output
    assert found.output.endswith("drift: face_width\n")
    as_json = json.loads(run("check", "--reference", reference, "--folder", folder, "--json", "-").output)
    assert (as_json["alarms"], as_json["videos"]) == (["face_width"], 50)
    since = time.strftime("%Y-%m-%d", time.gmtime(NOW_S - 30 * DAY_S))
    day = time.strftime("%Y-%m-%d", time.gmtime(NOW_S - 10 * DAY_S))
    same = run("check", "--reference", reference, "--folder", folder, "--since", since, "--until", day)
    assert (same.exit_code, same.output.splitlines()[-1]) == (0, "no drift")
    assert run("sample", "--reference", reference, "--folder", folder, "--until", day, "--since", since).stdout == ""
    few = run("check", "--reference", reference, "--folder", folder, "--until", since)
    assert (few.exit_code, "too few videos" in few.output) == (2, True)
    ids = run("sample", "--reference", reference, "--folder", folder, "--limit", 10).stdout.split()
    assert len(set(ids)) == 10
    assert run("check", "--reference", folder / "absent.json", "--folder", folder).exit_code == 2
    for wrong in ((), ("--service", folder, "--weights", "x"), ("--manifest", reference, "--since", since)):
        assert run("reference", *wrong, "--out", folder / "no.json").exit_code == 2
    assert not (folder / "no.json").exists()


@pytest.fixture(scope="module")
def served(folder: Path, reference: Path) -> Iterator[Served]:
    options = DriftOptions(read_reference(reference))
    with serving(folder, requests_s=1e6, drift=options) as served:
        until(lambda: served.service.drift.last() is not None)
        yield served


def test_the_api_has_what_the_command_says(served: Served) -> None:
    senior = served.client(Role.SENIOR)
    found = senior.get("/v1/drift").json()
    assert found["check"]["alarms"] == ["face_width"]
    assert found["reference"]["kind"] == "service"
    measure = {each["name"]: each for each in found["check"]["measures"]}["face_width"]
    assert sum(each["now"] for each in measure["bins"]) == pytest.approx(1)
    assert served.client(Role.REVIEW).get("/v1/drift").status_code == 403
    listed = senior.get("/v1/videos", params={"sort": "-typical", "limit": 10}).json()["videos"]
    folder = served.service.options.folder
    sampled = run("sample", "--reference", folder / "reference.json", "--folder", folder, "--limit", 10)
    ratios = "SELECT typical FROM drift_counts JOIN videos ON n = video WHERE id = ?"
    read = served.service.database.read()
    of = [
        [read.execute(ratios, (id_,)).fetchone()[0] for id_ in ids]
        for ids in ([each["id"] for each in listed], sampled.stdout.split())
    ]
    assert of[0] == of[1] == sorted(of[0], reverse=True)
    by_chance, again = (senior.get("/v1/videos", params={"sort": "chance"}).json() for _ in range(2))
    assert by_chance == again
    novel = served.client(Role.REVIEW).post("/v1/review/next", params={"sort": "-novelty"}).json()["video"]["id"]
    query = "SELECT id FROM drift_counts JOIN videos ON n = video ORDER BY novelty DESC, n DESC LIMIT 1"
    assert novel == read.execute(query).fetchone()["id"]


def test_metrics_have_the_age_of_the_weights_and_the_drift(served: Served) -> None:
    until(lambda: served.service.drift.report().weights)
    got = served.client(Role.SUBMIT).get("/v1/metrics")
    assert got.headers["content-type"].startswith("text/plain")
    values = dict(line.rsplit(" ", 1) for line in got.text.splitlines() if not line.startswith("#"))
    assert float(values['unmask_drift_alarm{measure="face_width"}']) == 1
    assert float(values['unmask_drift_alarm{measure="quality"}']) == 0
    assert float(values['unmask_drift_psi{measure="face_width"}']) > 0.1
    sha256 = find_entry(default_detector()).sha256
    (age_s,) = [float(value) for name, value in values.items() if name.startswith("unmask_weights_age_seconds")]
    (weights,) = served.client(Role.SENIOR).get("/v1/drift").json()["weights"]
    assert (weights["sha256"], weights["source"]) == (sha256, "catalogue")
    assert weights["age_s"] == pytest.approx(age_s, abs=60)
    served.service.drift.use([MadeWeights("e" * 64, "mine", None, DateSource.UNKNOWN)])
    assert "unmask_weights_age_seconds{" not in served.client(Role.SUBMIT).get("/v1/metrics").text
    assert served.client(Role.SENIOR).get("/v1/drift").json()["age_s"] is None
    assert served.client(None).get("/v1/metrics").status_code == 401


def test_the_page_says_it_in_words(served: Served, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    sign_in(page, served.url, served.key(Role.SENIOR))
    page.goto(f"{served.url}/drift")
    expect(page.get_by_role("status")).to_contain_text("faces are smaller than in the reference: median")
    expect(page.locator("article[data-alarm]")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than a phone"
    assert page.locator("img, video").count() == 0
    assert faults(page) == []
    page.get_by_role("link", name="Videos that are most typical of it").click()
    expect(page.get_by_label("Order")).to_have_value("-typical")
    assert wrong == []
    context.clear_cookies()
    sign_in(page, served.url, served.key(Role.REVIEW))
    assert page.goto(f"{served.url}/drift").status == 404  # type: ignore[union-attr]
    context.close()


def test_a_message_is_sent_once_for_each_change(folder: Path, reference: Path, tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    sent: list[dict[str, Any]] = []
    watch = DriftWatch(
        arrivals.database,
        DriftOptions(read_reference(reference)),
        lambda rows, owner, event, data: sent.append(data | {"event": event, "owner": owner}),
    )
    watch.look(NOW_S)
    assert "too few videos" in (watch.report().why_not or "")
    assert watch.report().check is None
    arrivals.come(50, NOW_S - DAY_S, seed=2, factor=0.5)
    for _ in range(2):
        watch.look(NOW_S)
    (message,) = sent
    assert (message["event"], message["owner"], message["alarms"]) == ("drift.alarm", "", ["face_width"])
    assert message["said"]["face_width"].startswith("faces are smaller")
    later_s = NOW_S + 8 * DAY_S
    watch.look(later_s)
    assert (len(sent), watch.report().check.alarms) == (1, ["face_width"]), "a quiet week takes nothing back"  # type: ignore[union-attr]
    arrivals.come(60, later_s - 1, seed=3)
    watch.look(later_s)
    assert [each["alarms"] for each in sent] == [["face_width"], []]
    (ranked,) = arrivals.database.read().execute("SELECT count(*) FROM drift_counts WHERE typical NOTNULL").fetchone()
    assert ranked == 0
    arrivals.database.close()


def test_only_those_who_see_the_page_get_the_message(folder: Path, reference: Path, tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    arrivals.come(50, NOW_S - DAY_S, seed=2, factor=0.5)
    keys, hook = Keys(arrivals.database), "http://127.0.0.1:1"
    webhooks = Webhooks(arrivals.database, arrivals.database.signer, UriAllow.parse(hook))
    made = {
        role: webhooks.create(keys.create(role.text, role)[0].id, f"{hook}/{role.text}", [WebhookEvent.DRIFT])
        for role in (Role.REVIEW, Role.SENIOR, Role.ADMIN)
    }
    DriftWatch(arrivals.database, DriftOptions(read_reference(reference)), webhooks.enqueue).look(NOW_S)
    assert {role: len(webhooks.deliveries(each)) for role, each in made.items()} == {
        Role.REVIEW: 0,
        Role.SENIOR: 1,
        Role.ADMIN: 1,
    }
    arrivals.database.close()


def test_an_unreadable_record_holds_nothing_up(folder: Path, reference: Path, tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    arrivals.come(50, NOW_S - DAY_S, seed=2, factor=0.5)
    broken = arrivals.one(NOW_S - DAY_S, record("broken"))
    with arrivals.database.write() as rows:
        rows.execute("UPDATE videos SET record = '{' WHERE id = ?", (broken,))
    arrivals.database.close()
    found = run("check", "--reference", reference, "--folder", tmp_path)
    assert (found.exit_code, found.output.splitlines()[-1]) == (3, "drift: face_width")


def test_a_video_that_comes_again_and_again_is_one(folder: Path, reference: Path, tmp_path: Path) -> None:
    arrivals = Arrivals(tmp_path)
    ids = arrivals.come(60, NOW_S - DAY_S, seed=4, factor=0.5)
    with arrivals.database.write() as rows:
        rows.execute("UPDATE videos SET uri = 'https://example.org/one.mp4'")
    arrivals.database.close()
    found = run("check", "--reference", reference, "--folder", tmp_path)
    assert (found.exit_code, "1 videos" in found.output, len(ids)) == (2, True, 60)
