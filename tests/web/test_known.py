"""Similar videos: copies are found, and what people decided on one is shown on the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from pipeline.clip_report import ClipReport
from pipeline.scan import Scanner
from pipeline.scanner_options import ScannerOptions
from pipeline.sources import Source
from tests import media
from tests.e2e.known_media import CHANGES, re_encode
from tests.web.served import Served, judged, serving
from web.judging import JudgeOptions
from web.keys import Role
from web.known import Kind, Similar, known_decision
from web.rounds import Choice


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("known") / "original.mp4"
    media.make_clip(path, seconds=2, seed=21)
    return path


@pytest.fixture(scope="module")
def copy(clip: Path) -> Path:
    path = clip.with_name("copy.mp4")
    re_encode(clip, path, *CHANGES["half the size"])
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that looks for copies first."""
    options = JudgeOptions(scanner=ScannerOptions(workers=2), known_first=True)
    with serving(tmp_path_factory.mktemp("first"), judge=options, requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


def two_say_fake(served: Served, id_: object) -> None:
    """Whatever the label, and whether two people have to decide or not: that closes it."""
    for _ in range(2):
        answer = served.client(Role.REVIEW).post(f"/v1/videos/{id_}/decisions", json={"decision": "fake"})
        assert answer.status_code == 201


def similar(client: httpx.Client, id_: object) -> dict[str, dict[str, object]]:
    answer = client.get(f"/v1/videos/{id_}/similar")
    assert answer.status_code == 200, answer.text
    return {each["id"]: each for each in answer.json()["similar"]}


def test_copies_are_listed_with_what_people_decided(served: Served, clip: Path, copy: Path, three_faces: Path) -> None:
    client = served.client()
    original, again, re_encoded, other = (judged(client, path)["id"] for path in (clip, clip, copy, three_faces))
    found = similar(client, re_encoded)
    assert found[original]["kind"] == "same_content"
    assert found[original]["share"] == found[original]["other_share"] == 1.0
    assert found[original]["is_copy"] is True
    assert other not in found
    assert similar(client, original)[again]["kind"] == "same_file"
    before = client.get(f"/v1/videos/{re_encoded}")
    assert before.json()["known"] is None
    for role, decision in ((Role.REVIEW, "fake"), (Role.REVIEW, "real"), (Role.SENIOR, "fake")):
        answer = served.client(role).post(f"/v1/videos/{original}/decisions", json={"decision": decision})
        assert answer.status_code == 201
    assert similar(client, re_encoded)[original]["decisions"] == {"fake": 2, "real": 1}
    after = client.get(f"/v1/videos/{re_encoded}", headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    known = after.json()["known"]
    assert known == {"video": original, "decision": "fake", "votes": 2, "of": 3, "share": 1.0}
    client.delete(f"/v1/videos/{original}")
    assert original not in similar(client, re_encoded)


def test_a_key_sees_only_what_it_may_see(served: Served, clip: Path, copy: Path) -> None:
    one, other = served.client(Role.SUBMIT), served.client(Role.SUBMIT)
    theirs, ours = judged(one, clip)["id"], judged(other, copy)["id"]
    served.client(Role.REVIEW).post(f"/v1/videos/{theirs}/decisions", json={"decision": "fake"})
    assert similar(other, ours) == {}
    assert other.get(f"/v1/videos/{ours}").json()["known"] is None
    assert other.get(f"/v1/videos/{theirs}/similar").status_code == 404
    assert theirs in similar(served.client(Role.REVIEW), ours)


def test_a_decision_is_shown_before_scoring(
    first: Served, clip: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = first.client()
    original = judged(client, clip)["id"]
    two_say_fake(first, original)
    before: list[dict[str, object]] = []
    scan: Callable[..., ClipReport | None] = Scanner.scan

    def looked_at(self: Scanner, source: Source, **more: object) -> ClipReport | None:
        before.append(client.get(f"/v1/videos/{source.id}").json())
        return scan(self, source, **more)

    monkeypatch.setattr(Scanner, "scan", looked_at)
    done = judged(client, copy)
    (then,) = before
    assert (then["state"], then["outcome"]) == ("running", None)
    assert then["known"] == done["known"] == {"video": original, "decision": "fake", "votes": 2, "of": 2, "share": 1.0}


def test_the_page_shows_the_decision_on_a_copy(first: Served, clip: Path, copy: Path, browser: Browser) -> None:
    client = first.client()
    original, re_encoded = (judged(client, path)["id"] for path in (clip, copy))
    two_say_fake(first, original)
    context = browser.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.goto(first.url)
    page.get_by_label("Key").fill(first.key(Role.REVIEW))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/videos$"), timeout=120_000)
    page.goto(f"{first.url}/videos/{re_encoded}")
    expect(page.locator("[data-known]")).to_contain_text("people decided: Fake (2 of 2): original.mp4")
    expect(page.locator("[data-similar]")).to_contain_text("100 % of this video in the other one")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(f"[data-similar] a[href='/videos/{original}']").click()
    expect(page).to_have_url(f"{first.url}/videos/{original}", timeout=120_000)
    context.close()


def test_a_real_original_says_nothing_about_its_copies() -> None:
    decided = Counter({Choice.REAL: 2})
    copy = Similar("a", "a.mp4", Kind.SAME_CONTENT, 1.0, 1.0, 3.0, decided)
    assert known_decision([copy]) is None
    known = known_decision([copy, replace(copy, kind=Kind.SAME_FILE)])
    assert known is not None
    assert (known.decision, known.votes, known.of) == (Choice.REAL, 2, 2)
    fake = known_decision([replace(copy, decisions=Counter({Choice.FAKE: 1}))])
    assert fake is not None
    assert fake.decision is Choice.FAKE
