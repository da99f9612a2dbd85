"""The system's Chromium for tests, started so that it makes no network calls of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# --no-sandbox: as root, Chromium starts only with it. The others keep a fresh profile from looking for updates,
# which hangs without a network.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class ChromiumMissingError(Exception):
    """Chromium is not installed; the message says how to get it."""


@contextmanager
def launched_chromium() -> Iterator[Browser]:
    """A headless browser with a new, empty profile.

    Raises:
        ChromiumMissingError: none of `COMMANDS` is on the path.
    """
    path = next((path for command in COMMANDS if (path := shutil.which(command))), None)
    if path is None:
        raise ChromiumMissingError("no Chromium: deploy/local/packages.sh installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, url: str, key: str) -> None:
    """Sign in at a service's page, and wait for its list."""
    page.goto(url)
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/videos")


def browser_for_tests() -> Iterator[Browser]:
    """Body of a fixture: the browser; if it is missing, a skip, or a failure with CI=true."""
    try:
        with launched_chromium() as browser:
            yield browser
    except ChromiumMissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
