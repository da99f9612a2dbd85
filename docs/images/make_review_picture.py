"""Makes review.jpg, the README's picture of the review page: a real service, a made clip, Chromium.

Run it from the root of the repository:

    python -m docs.images.make_review_picture
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.images.size import check_size
from tests.browser import launched_chromium, sign_in
from tests.web.served import judged, serving, until
from web.keys import Role

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
WIDTH_PX, HEIGHT_PX = 1280, 1080
MAX_BYTES = 250_000


def main() -> None:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch) / "served") as served:
        subprocess.run([sys.executable, "-m", "tests.media", scratch], cwd=ROOT, check=True)
        video = judged(served.client(), Path(scratch) / "fake.mp4")
        with launched_chromium() as browser:
            context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
            tab = context.new_page()
            sign_in(tab, served.url, served.key(Role.REVIEW))
            tab.goto(f"{served.url}/videos/{video['id']}")
            until(lambda: tab.evaluate("document.querySelector('[data-player]').readyState >= 2"))
            tab.evaluate("document.querySelector('[data-player]').controls = false")
            plot = tab.locator("[data-plot]").first
            box = plot.bounding_box()
            assert box is not None
            plot.click(position={"x": box["width"] * 0.6, "y": box["height"] * 0.7})
            tab.evaluate("scrollTo(0, 0)")
            until(lambda: tab.evaluate("document.querySelector('[data-player]').currentTime > 1"))
            tab.mouse.move(WIDTH_PX - 5, HEIGHT_PX - 5)
            tab.wait_for_timeout(500)
            tab.screenshot(path=FOLDER / "review.jpg", type="jpeg", quality=85)
    check_size(FOLDER / "review.jpg", MAX_BYTES)


if __name__ == "__main__":
    main()
