"""How fast `unmask serve` answers: pages in a browser, a list of 10,000 videos, 200 uploads at once.

python -m tests.e2e.serve_speed CLIP [--uploads 200] [--videos 10000]
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
from playwright.sync_api import Page

from tests.browser import launched_chromium, sign_in
from tests.e2e.measure import say
from tests.web.served import until
from tests.web.test_restart import SERVE, started

_LOADS = 6
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def described(times_s: list[float]) -> str:
    """Median, 95th percentile and maximum in milliseconds."""
    median, high, most = np.percentile(times_s, [50, 95, 100]) * 1000
    return f"median {median:.0f} ms, p95 {high:.0f} ms, at most {most:.0f} ms"


def filled(folder: Path, count: int) -> None:
    """Copy the one video of a service that has ended, under new ids and with other bytes."""
    with sqlite3.connect(folder / "unmask.sqlite3") as rows:
        names = [row[1] for row in rows.execute("PRAGMA table_info(videos)") if row[1] != "n"]
        changed = {"id": "lower(hex(randomblob(12)))", "sha256": "lower(hex(randomblob(32)))", "idempotency": "NULL"}
        values = ", ".join(changed.get(name, name) for name in names)
        rows.execute(
            f"WITH RECURSIVE counted (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM counted WHERE i < {count}) "
            f"INSERT INTO videos ({', '.join(names)}) SELECT {values} FROM videos, counted"
        )


def measure_list(client: httpx.Client) -> None:
    """Requests that a reviewer's page makes, each 20 times."""
    ways: dict[str, Callable[[], httpx.Response]] = {
        "list, newest first": lambda: client.get("/v1/videos"),
        "list, most suspicious first": lambda: client.get("/v1/videos?sort=-probability&limit=200"),
        "list, filtered": lambda: client.get("/v1/videos?label=fake&decided=no&find=clip"),
        "the next clip to review": lambda: client.post("/v1/review/next"),
    }
    for name, ask in ways.items():
        times_s = []
        for _ in range(20):
            begun_s = time.perf_counter()
            assert ask().status_code in (200, 204)
            times_s.append(time.perf_counter() - begun_s)
        say(f"{name}: {described(times_s)}")


def measure_pages(page: Page, url: str, key: str, video: str) -> None:
    """First contentful paint of each page, loaded several times."""
    sign_in(page, url, key)
    for path in ("/videos", f"/videos/{video}", "/quality"):
        times_s = []
        for _ in range(_LOADS):
            page.goto(url + path)
            until(lambda: page.evaluate(_PAINT))
            times_s.append(page.evaluate(_PAINT) / 1000)
        say(f"first paint of {path.replace(video, 'ID')}: {described(times_s)}")


def measure_uploads(client: httpx.Client, content: bytes, count: int) -> None:
    """Uploads that all begin at once, until all are judged."""
    statuses: list[int] = []
    times_s: list[float] = []
    gate = threading.Barrier(count)

    def send(number: int) -> None:
        gate.wait()
        begun_s = time.perf_counter()
        # Other bytes each, or all would get the first one's verdict.
        body = content + number.to_bytes(8)
        status = client.post("/v1/videos", params={"name": f"{number}.mp4"}, content=body).status_code
        times_s.append(time.perf_counter() - begun_s)
        statuses.append(status)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(count)]
    begun_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = statuses.count(202)
    say(f"{count} uploads at once: {dict(Counter(statuses))}, {described(times_s)}")
    until(
        lambda: (
            not any(client.get(f"/v1/videos?limit=1&state={each}").json()["videos"] for each in ("queued", "running"))
        ),
        3600,
    )
    say(f"all {accepted} judged after {time.perf_counter() - begun_s:.0f} s")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--videos", type=int, default=10_000)
    options = parser.parse_args()
    content = options.clip.read_bytes()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "served"
        with started(folder, command=SERVE) as service:
            video = service.client.post("/v1/videos", params={"name": "clip.mp4"}, content=content).json()["id"]
            until(lambda: service.client.get(f"/v1/videos/{video}").json()["state"] == "done")
            key = service.key
        filled(folder, options.videos)
        with started(folder, key, SERVE) as service:
            until(lambda: service.client.get("/readyz").status_code == 200)
            say(f"{options.videos + 1} videos, load {os.getloadavg()[0]:.1f}")
            measure_list(service.client)
            with launched_chromium() as browser:
                measure_pages(browser.new_page(), str(service.client.base_url).rstrip("/"), key, video)
            measure_uploads(service.client, content, options.uploads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
