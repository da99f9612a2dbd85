"""The page in a real browser: sign in, hand in, watch, decide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.web.served import Served, judged, until
from web.keys import Role

PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def page(served: Served, browser: Browser) -> Iterator[Page]:
    """A page of a reviewer who has signed in; what its scripts complain about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(served.url)
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("Key").fill(served.key(Role.REVIEW))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/videos$"))
    page.wait_for_load_state("load")
    yield page
    context.close()
    known = ("415", "404", "ERR_CONNECTION_RESET")
    assert [each for each in wrong if not any(text in each for text in known)] == []


def when(page: Page, expression: str) -> None:
    """Wait until it is true. Playwright's own waiting evaluates texts in the page, which the page's policy forbids."""
    until(lambda: page.evaluate(expression))


def decided(page: Page) -> list[str]:
    return page.locator("[data-history] li:not(.undone) b").all_inner_texts()


def test_an_upload_is_followed_to_its_verdict(page: Page, one_face: Path, tmp_path: Path) -> None:
    (text := tmp_path / "notes.txt").write_text("no video")
    page.locator("[data-files]").set_input_files([one_face, text])
    expect(page.locator("[data-uploads] li[data-failed]")).to_contain_text("not accepted: it does not begin like")
    done = page.locator("[data-uploads] li[data-done]")
    expect(done).to_contain_text("judged:")
    row = page.locator(f"tr[data-video='{done.get_attribute('data-video')}']")
    expect(row.locator(".badge")).to_be_visible()
    shown = row.inner_text(), page.locator(".counts").inner_text()
    page.reload()
    assert (row.inner_text(), page.locator(".counts").inner_text()) == shown
    assert page.evaluate("document.querySelector('[name=find]').maxLength") == 255
    row.get_by_role("link").click()
    expect(page.locator("h1")).not_to_contain_text("not judged")
    expect(page.locator(".source").first).to_have_text(one_face.name)


def test_only_a_part_is_judged_where_one_is_chosen(page: Page, one_face: Path) -> None:
    page.get_by_text("Judge only a part of them").click()
    page.locator("[data-start]").fill("0:02")
    page.locator("[data-end]").fill("1.5")
    page.locator("[data-files]").set_input_files(one_face)
    expect(page.get_by_role("alert")).to_contain_text("this is not a part of a video")
    expect(page.locator(".uploads li")).to_have_count(0)
    page.locator("[data-start]").fill("0:00.5")
    page.locator("[data-files]").set_input_files(one_face)
    page.locator(".uploads li[data-done] a").click()
    expect(page.locator("main")).to_contain_text("only 0.50 s to 1.50 s was judged")


def test_a_large_file_goes_on_after_a_lost_connection(page: Page, one_face: Path) -> None:
    sent: list[str] = []

    def lose_once(route: Route) -> None:
        if route.request.method == "PATCH":
            sent.append(route.request.headers["upload-offset"])
            if len(sent) == 2:
                route.abort("connectionreset")
                return
        route.continue_()

    page.route("**/v1/uploads/*", lose_once)
    piece = one_face.stat().st_size // 2 + 1
    page.evaluate(f"Object.assign(document.querySelector('[data-uploads]').dataset, {{resumable: 1, piece: {piece}}})")
    page.locator("[data-files]").set_input_files(one_face)
    expect(page.locator("[data-uploads] li[data-done]")).to_contain_text("judged:")
    assert sent == ["0", str(piece), str(piece)]


def test_timelines_seek_and_keys_decide(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    when(page, "document.querySelector('[data-player]').readyState >= 1")
    plot = page.locator("[data-plot]").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    plot.click(position={"x": box["width"] / 2, "y": 30})
    when(page, "Math.abs(document.querySelector('[data-player]').currentTime - 2) < 0.1")
    times = page.evaluate("JSON.parse(document.querySelector('[data-chart] script').textContent).t")
    page.mouse.move(1, 1)
    page.keyboard.press("ArrowRight")
    at = min(range(len(times)), key=lambda i: abs(times[i] - 2)) + 1
    when(page, f"Math.abs(document.querySelector('[data-player]').currentTime - {times[at]}) < 0.01")
    page.keyboard.press("ArrowLeft")
    when(page, f"Math.abs(document.querySelector('[data-player]').currentTime - {times[at - 1]}) < 0.01")
    page.keyboard.press("1")
    expect(page.locator("[data-said]")).to_have_text("Fake: saved")
    assert decided(page) == ["Fake"]
    pressed = page.locator("[data-choice][aria-pressed=true]")
    expect(pressed).to_contain_text("Fake")
    page.keyboard.press("2")
    expect(pressed).to_contain_text("Real")
    page.keyboard.press("u")
    expect(pressed).to_contain_text("Fake")
    page.reload()
    expect(pressed).to_contain_text("Fake")
    page.keyboard.press("u")
    expect(page.locator("[data-said]")).to_have_text("Fake: undone")
    assert decided(page) == []
    expect(pressed).to_have_count(0)
    page.keyboard.press("u")
    expect(page.locator("[data-said]")).to_have_text("nothing to undo: you have no decision on this video")
    page.locator("select[name=track]").focus()
    page.locator("select[name=track]").select_option("0")
    page.keyboard.press("3")
    expect(page.locator("[data-said]")).to_have_text("Unsure: saved")
    page.get_by_label("Comment").fill("the mouth")
    page.get_by_role("button", name="Real").click()
    expect(page.locator("[data-said]")).to_have_text("Real: saved")
    page.reload()
    assert decided(page) == ["Real"]
    expect(page.locator("[data-history]")).to_contain_text("the mouth")


def test_space_plays_or_pauses_once_after_clicks(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    player = "document.querySelector('[data-player]')"
    when(page, f"{player}.readyState >= 3")
    page.evaluate(
        f"{player}.loop = true; window.seen = [];"
        f"for (const kind of ['play', 'pause']) {player}.addEventListener(kind, () => seen.push(kind))"
    )
    page.locator("[data-player]").click()
    when(page, "seen.length === 1")
    page.keyboard.press(" ")
    when(page, "seen.length >= 2")
    page.get_by_role("button", name="Fake").click()
    expect(page.locator("[data-said]")).to_have_text("Fake: saved")
    page.keyboard.press(" ")
    when(page, "seen.length >= 3")
    assert page.evaluate("seen.join()") == "play,pause,play"
    assert served.client().get(f"/v1/videos/{id_}").json()["decisions"][0]["decision"] == "fake"
    assert page.locator("[data-history] li").count() == 1
    page.keyboard.press("Tab")
    page.keyboard.press(" ")
    expect(page.locator("[data-said]")).to_have_text("Real: saved")
    assert page.evaluate("seen.join()") == "play,pause,play"


def test_a_decision_that_was_not_saved_can_be_tried_again(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    page.get_by_label("Comment").fill("the mouth")
    page.route("**/v1/**", lambda route: route.abort("connectionreset"))
    fake = page.get_by_role("button", name="Fake")
    fake.click()
    expect(page.locator("[data-said]")).to_have_text("not saved: the connection was lost")
    expect(fake).to_have_attribute("data-unsaved", "")
    page.keyboard.press("u")
    expect(page.locator("[data-said]")).to_have_text("not undone: the connection was lost")
    page.keyboard.press("g")
    expect(page.locator("[data-tool-said]")).to_have_text("not saved: the connection was lost")
    page.unroute("**/v1/**")
    page.keyboard.press("1")
    expect(page.locator("[data-said]")).to_have_text("Fake: saved")
    expect(fake).not_to_have_attribute("data-unsaved", "")
    expect(page.locator("[data-history]")).to_contain_text("the mouth")


def test_a_picture_has_no_time_and_a_broken_file_no_faces(
    page: Page, served: Served, face: Path, one_face: Path, tmp_path: Path
) -> None:
    client = served.client()
    page.goto(f"{served.url}/videos/{judged(client, face)['id']}")
    expect(page.get_by_role("button", name="Boxes")).to_be_visible()
    for name in ("Play or pause", "Half speed", "Loop"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("slider")).to_have_count(0)
    (broken := tmp_path / "broken.mp4").write_bytes(one_face.read_bytes()[:64] + bytes(5000))
    page.goto(f"{served.url}/videos/{judged(client, broken)['id']}")
    expect(page.locator("[data-unplayed]")).to_have_text("This browser does not play this file.")
    expect(page.locator("main")).not_to_contain_text("This file has no Content Credentials")


def test_keys_work_after_a_click_on_the_players_own_controls(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    when(page, "document.querySelector('[data-player]').readyState >= 3")
    player = page.locator("[data-player]")
    box = player.bounding_box()
    assert box is not None
    player.click(position={"x": box["width"] / 2, "y": box["height"] - 17})
    # The click was on its seek bar, not on the picture.
    when(page, "document.querySelector('[data-player]').currentTime > 0.5")
    assert page.evaluate("document.querySelector('[data-player]').paused")
    page.keyboard.press("1")
    expect(page.locator("[data-said]")).to_have_text("Fake: saved")


def test_keys_move_through_the_list(page: Page, served: Served, one_face: Path) -> None:
    client = served.client()
    first, second = (judged(client, one_face)["id"] for _ in range(2))
    page.goto(f"{served.url}/videos")
    page.goto(f"{served.url}/videos/{second}")
    page.keyboard.press("j")
    expect(page).to_have_url(f"{served.url}/videos/{first}")
    page.wait_for_load_state("load")
    page.keyboard.press("k")
    expect(page).to_have_url(f"{served.url}/videos/{second}")
    page.wait_for_load_state("load")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_blur_and_grey_stay_until_they_are_switched_off(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    page.mouse.move(1, 1)
    for key in "bg":
        with page.expect_response("**/v1/me/preferences"):
            page.keyboard.press(key)
    page.reload()
    style = "getComputedStyle(document.querySelector('[data-player]')).filter"
    assert page.evaluate(style) == "blur(14px) grayscale(1)"
    assert page.evaluate("document.querySelector('[data-player]').muted")
    for name in ("Blur", "Grey"):
        with page.expect_response("**/v1/me/preferences"):
            page.get_by_role("button", name=name).click()
    page.mouse.move(1, 1)
    assert page.evaluate(style) == "none"


def test_a_crop_is_explained_at_a_key_or_a_button(page: Page, served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    page.goto(f"{served.url}/videos/{id_}")
    buttons = page.get_by_role("button", name="What does the score depend on?")
    expect(buttons.first).to_be_visible()
    page.keyboard.press("e")
    shown = page.locator("[data-explanation]")
    answer = re.compile(r"^The score (depends on the marked|does not depend on one) area: hiding .* 15\s% of the crop")
    expect(shown.locator("figcaption")).to_have_text(answer)
    found = served.client().get(f"/v1/videos/{id_}/crops/0/0/explanation").json()
    expect(shown.locator("img")).to_have_count(2 if found["holds"] else 1)
    expect(shown.locator("figcaption")).to_contain_text(f"{found['change']:.2f}")
    when(page, "[...document.querySelectorAll('[data-explanation] img')].every((img) => img.naturalWidth > 0)")
    served.client().delete(f"/v1/videos/{id_}").raise_for_status()
    buttons.last.click()
    expect(shown.locator("figcaption")).to_have_text("No answer: no such video")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_phone(page: Page, served: Served, three_faces: Path, browser: Browser, scheme: str) -> None:
    id_ = judged(served.client(), three_faces)["id"]
    state = page.context.storage_state()
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, storage_state=state)  # type: ignore[arg-type]
    phone = context.new_page()
    for path in ("/videos", f"/videos/{id_}"):
        phone.goto(served.url + path)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390
        assert all(
            phone.locator(".scroll").evaluate_all("all => all.map(each => each.scrollWidth <= each.clientWidth)")
        )
    context.close()
