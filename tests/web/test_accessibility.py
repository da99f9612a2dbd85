"""The pages by axe-core (WCAG's rules that a program can check), and by the Tab key."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.credentials import Authority
from tests.web.served import Served, judged
from web.keys import Role
from web.oidc import Provider
from web.oidc_options import OidcOptions, RoleMapping

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LOOKS = [(scheme, width) for scheme in SCHEMES for width in (1280, 390)]


@pytest.fixture(scope="module")
def videos(served: Served, one_face: Path, three_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A signed clip on which someone has decided, and one that is being judged."""
    client = served.client()
    signed = Authority.new().sign(three_faces, tmp_path_factory.mktemp("signed") / "signed.mp4")
    done, running = judged(client, signed)["id"], judged(client, one_face)["id"]
    for track in (None, 0):
        sent = {"decision": "fake", "track": track, "reason": "lips", "comment": "the mouth"}
        assert client.post(f"/v1/videos/{done}/decisions", json=sent).status_code == 201
    assert client.delete(f"/v1/videos/{done}/decisions/last").status_code == 200
    with served.service.database.write() as rows:
        rows.execute("UPDATE videos SET state = 'running', outcome = NULL, record = NULL WHERE id = ?", (running,))
    return [str(done), str(running)]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def senior(served: Served) -> str:
    """One person for all tests: a clip that somebody else has just closed may still be held for them."""
    return served.key(Role.SENIOR)


def sign_in(page: Page, served: Served, key: str) -> None:
    page.goto(f"{served.url}/login")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/videos")


def found(page: Page) -> list[Any]:
    """What axe finds in all looks of the page: the look, rule, weight, and where."""
    faults = []
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 844})
        faults += [
            (scheme, width, each["id"], each["impact"], [node["html"][:200] for node in each["nodes"]])
            for each in Axe().run(page).response["violations"]
        ]
    return faults


def test_axe_finds_nothing(
    page: Page, served: Served, videos: list[str], senior: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = OidcOptions("https://sso.example.org", "unmask", "x", RoleMapping.parse("groups=a:review"), served.url)
    monkeypatch.setattr(served.service, "provider", Provider(options))
    page.goto(f"{served.url}/login")
    assert found(page) == []
    sign_in(page, served, senior)
    assert found(page) == []
    for id_ in reversed(videos):
        page.goto(f"{served.url}/videos/{id_}")
        assert found(page) == [], id_
    page.keyboard.press("?")
    assert found(page) == []


def test_the_keyboard_comes_to_the_decision_at_once(
    served: Served, videos: list[str], senior: str, browser: Browser
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    context.set_default_timeout(120_000)
    page = context.new_page()
    sign_in(page, served, senior)
    page.goto(f"{served.url}/videos/{videos[0]}")
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(each => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the decision")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_attribute("name", "track")
    context.close()
