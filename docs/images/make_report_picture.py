"""Makes report.png and report-dark.png, the README's pictures of a report: a real scan of a made clip, in Chromium.

Run it from the root of the repository:

    python -m docs.images.make_report_picture [--weights PATH]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from docs.images.size import check_size
from tests.browser import launched_chromium

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
# The first screens of the page: verdict, timelines and faces.
WIDTH_PX, HEIGHT_PX = 1280, 1080
MAX_BYTES = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the README's pictures of a report.")
    parser.add_argument("--weights", type=Path, help="checkpoint to score with; without it, an untrained network")
    weights = parser.parse_args().weights
    scored_by = ["--weights", str(weights.resolve())] if weights else ["--untrained"]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "tests.media", scratch], cwd=ROOT, check=True)
        unmask = Path(sys.executable).with_name("unmask")
        scan = [unmask, "scan", "fake.mp4", "--fps", "4", *scored_by, "--report", "report.html"]
        # In the scratch folder, so that the page shows the clip's name alone.
        subprocess.run(scan, cwd=scratch, check=True)
        page = (Path(scratch) / "report.html").as_uri()
        with launched_chromium() as browser:
            for scheme, name in (("light", "report.png"), ("dark", "report-dark.png")):
                with browser.new_context(
                    viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, color_scheme=scheme
                ) as context:
                    tab = context.new_page()
                    tab.goto(page)
                    tab.screenshot(path=FOLDER / name)
                check_size(FOLDER / name, MAX_BYTES)


if __name__ == "__main__":
    main()
