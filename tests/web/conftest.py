"""One service for all tests of the API and the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import browser_for_tests
from tests.web.served import Served, serving


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("serve"), requests_s=1e6, unknown_keys_s=1e6) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    yield from browser_for_tests()
