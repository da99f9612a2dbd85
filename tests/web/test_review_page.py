"""Reviewing in a real browser: the next clip, skips, others, many at once, views, the page about quality."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.queue import Queue
from tests.web.served import Served
from web.keys import Role

PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


@contextmanager
def signed_in(served: Served, browser: Browser, role: Role) -> Iterator[Page]:
    """A page of somebody who has signed in; what its scripts complain about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(served.url)
    page.get_by_label("Key").fill(served.key(role))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/videos$"))
    yield page
    context.close()
    assert wrong == []


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def at(page: Page, id_: str) -> None:
    expect(page).to_have_url(re.compile(f"/videos/{id_}$"))
    page.wait_for_load_state("load")


def test_two_people_review_by_keys(reviewed: Served, browser: Browser, face: Path, stack: ExitStack) -> None:
    queue = Queue(reviewed, face, 3)
    first, second = (stack.enter_context(signed_in(reviewed, browser, Role.REVIEW)) for _ in range(2))
    for page in (first, second):
        page.get_by_label("Find").fill(queue.name)
        page.get_by_label("Order").select_option("created")
        expect(page).to_have_url(re.compile("sort=created"))
    first.get_by_role("button", name="Review the next one").click()
    at(first, queue.ids[0])
    second.get_by_role("button", name="Review the next one").click()
    at(second, queue.ids[1])
    second.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
    expect(second.get_by_text("Somebody else reviews this clip now.")).to_be_visible()
    expect(second.locator("[data-decide]")).to_have_count(0)
    # The second person has left the second clip by opening another one.
    first.keyboard.press("3")
    expect(first.locator("[data-said]")).to_have_text("Unsure: saved")
    first.keyboard.press("n")
    at(first, queue.ids[1])
    first.keyboard.press("s")
    expect(first.get_by_role("dialog")).to_be_visible()
    first.get_by_role("button", name="I would rather not watch it").click()
    at(first, queue.ids[2])
    first.keyboard.press("4")
    expect(first.locator("[data-said]")).to_have_text("Not applicable: saved")
    first.keyboard.press("n")
    expect(first.locator("[data-said]")).to_have_text("Nothing is open for you.")
    second.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
    expect(second.get_by_text("No decisions yet.")).to_be_visible()
    second.keyboard.press("1")
    expect(second.locator("[data-said]")).to_have_text("Fake: saved")
    second.keyboard.press("u")
    expect(second.locator("[data-said]")).to_have_text("Fake: undone")
    found = [queue.get(id_) for id_ in queue.ids]
    assert [(each["round"], each["answer"]) for each in found] == [
        ("second", None),
        ("first", None),
        ("closed", "not_applicable"),
    ]


def test_a_senior_decides_on_many_and_sees_the_quality(
    reviewed: Served, browser: Browser, face: Path, stack: ExitStack
) -> None:
    queue = Queue(reviewed, face, 2)
    page = stack.enter_context(signed_in(reviewed, browser, Role.SENIOR))
    page.goto(f"{reviewed.url}/videos?find={queue.name.strip()}%20")
    page.get_by_label("Select all of this page").check()
    expect(page.locator("[data-selected]")).to_have_text("2")
    page.get_by_label("Reason").fill("spam")
    page.locator("[data-bulk] [data-decide=not_applicable]").click()
    expect(page.locator("[data-videos] td", has_text="Not applicable")).to_have_count(2)
    assert [queue.get(id_)["answer"] for id_ in queue.ids] == ["not_applicable"] * 2
    page.get_by_role("button", name="Save this view").first.click()
    page.get_by_label("Name of the view").fill("<b>mine</b>")
    page.get_by_role("dialog").get_by_role("button", name="Save this view").click()
    link = page.get_by_role("link", name="<b>mine</b>")
    expect(link).to_have_attribute("aria-current", "page")
    page.goto(f"{reviewed.url}/videos")
    link.click()
    expect(page.locator("tr[data-video]")).to_have_count(2)
    page.get_by_role("button", name="Delete this view: <b>mine</b>").click()
    expect(link).to_have_count(0)
    page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
    page.get_by_label("Known answer").select_option("fake")
    expect(page.locator("[data-golden-said]")).to_have_text("saved")
    page.get_by_role("link", name="Reviewing").click()
    expect(page.locator("[data-reviewers]")).to_contain_text("a senior")
    expect(page.locator(".counts")).to_contain_text(re.compile(r"0 clips to audit.*(1 clip waits|\d+ clips wait) for"))
    expect(page.locator(".history li").first).to_contain_text("known answer: Fake, 1 video")
    expect(page.locator(".history li").nth(1)).to_contain_text("decided on many: Not applicable, 2 videos · spam")


def test_ticks_and_focus_stay_while_the_list_changes(reviewed: Served, browser: Browser, face: Path) -> None:
    queue = Queue(reviewed, face, 2)
    with signed_in(reviewed, browser, Role.SENIOR) as page:
        page.goto(f"{reviewed.url}/videos?find={queue.name.strip()}%20")
        tick = page.locator(f"tr[data-video='{queue.ids[0]}'] [data-tick]")
        tick.check()
        added = {"name": f"{queue.name}more.png", "mimeType": "image/png", "buffer": face.read_bytes()}
        page.locator("[data-files]").set_input_files([added])  # type: ignore[list-item]
        tick.focus()
        expect(page.locator("tr[data-video][data-state=done]")).to_have_count(3)
        expect(tick).to_be_checked()
        expect(tick).to_be_focused()
        expect(page.locator("[data-selected]")).to_have_text("1")
        page.route("**/bulk", lambda route: route.abort())
        page.locator("[data-bulk] [data-decide=unsure]").click()
        expect(page.locator("[data-bulk-said]")).to_have_text("not done: the connection was lost")
        expect(tick).to_be_checked()


def test_what_another_person_deleted_cannot_be_deleted_again(reviewed: Served, browser: Browser, face: Path) -> None:
    queue = Queue(reviewed, face, 1)
    with signed_in(reviewed, browser, Role.SENIOR) as page:
        page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
        queue.admin.delete(f"/v1/videos/{queue.ids[0]}").raise_for_status()
        page.get_by_role("button", name="Delete video").click()
        expect(page.locator("[data-delete-said]")).to_have_text("not deleted: no such video")


def test_a_page_comes_blurred_for_those_who_want_that(reviewed: Served, browser: Browser, face: Path) -> None:
    queue = Queue(reviewed, face, 1)
    with signed_in(reviewed, browser, Role.REVIEW) as page:
        page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
        with page.expect_response("**/v1/me/preferences"):
            page.keyboard.press("b")
        page.context.route("**/*.js", lambda route: route.abort())
        page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
        assert "blurred" in (page.locator("[data-stage]").get_attribute("class") or "")
        assert "blurred-faces" in (page.locator("body").get_attribute("class") or "")
        page.context.unroute("**/*.js")


def test_a_closed_review_is_opened_again(reviewed: Served, browser: Browser, face: Path) -> None:
    queue = Queue(reviewed, face, 1)
    for _ in range(2):
        decided = reviewed.client(Role.SENIOR).post(f"/v1/videos/{queue.ids[0]}/decisions", json={"decision": "fake"})
        assert decided.status_code == 201
    with signed_in(reviewed, browser, Role.REVIEW) as page:
        page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
        page.get_by_text("Open the review again").first.click()
        page.get_by_label("Why?").fill("1 more look, please")
        page.locator("[data-appeal] button").click()
        expect(page.locator("[data-appeal]")).to_have_count(0)
        expect(page.locator("[data-appeals]")).to_contain_text("1 more look, please")
        expect(page.locator("[data-decide]")).to_have_count(0)
    with signed_in(reviewed, browser, Role.SENIOR) as page:
        page.goto(f"{reviewed.url}/videos/{queue.ids[0]}")
        expect(page.locator("[data-appeals]")).to_contain_text("against Fake: 1 more look, please")
        page.keyboard.press("2")
        expect(page.locator("[data-said]")).to_have_text("Real: saved")
    assert queue.get(queue.ids[0])["answer"] == "real"
