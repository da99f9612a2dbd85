"""Makes streams.jpg, the picture of the page of live streams: real services, a worker, a made clip, Chromium.

Run it from the root of the repository:

    python -m docs.images.make_streams_picture
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from deploy.local.services import KafkaServer, RedisServer, kafka_jars
from docs.images.size import check_size
from pipeline.live.cutter import cut
from pipeline.settings import Settings
from pipeline.transport.kafka import ensure_topics
from tests import media
from tests.browser import launched_chromium, sign_in
from tests.web.served import Served, serving, until
from web.keys import Role

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
WIDTH_PX, HEIGHT_PX = 1280, 720
MAX_BYTES = 250_000
NAME = "gate-3"
# From the middle on, every face is altered.
SECONDS = 40


def main() -> None:
    """Make the picture."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer(scratch / "redis"))
        kafka = stack.enter_context(KafkaServer(scratch / "kafka", kafka_jars()))
        ensure_topics(kafka.bootstrap)
        # The stream waits for the picture, not for a camera.
        settings = {"UNMASK_KAFKA": kafka.bootstrap, "UNMASK_REDIS": redis.url, "UNMASK_LIVE_MAX_AGE_S": "300"}
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", "worker"]
        environment = {**os.environ, **settings, "UNMASK_URI_ALLOW": str(scratch)}
        worker = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=environment))
        stack.callback(worker.send_signal, signal.SIGTERM)
        served = stack.enter_context(
            serving(scratch / "served", Settings(kafka=kafka.bootstrap, redis=redis.url), workers=True)
        )
        real, fake = scratch / "real.mp4", scratch / "fake.mp4"
        people = ((0, SECONDS), (SECONDS * 0.3, SECONDS * 0.75))
        media.make_clip(real, seconds=SECONDS, size=(1280, 720), faces=people, face_px=(170, 210))
        media.make_fake(real, fake)
        _send(served, real, fake)
        _picture(served)
    check_size(FOLDER / "streams.jpg", MAX_BYTES)


def _send(served: Served, real: Path, fake: Path) -> None:
    """Send the stream, each segment once the one before is judged; it stays open."""
    sender, reviewer = served.client(Role.SUBMIT), served.client(Role.REVIEW)
    until(lambda: sender.get("/readyz").status_code == 200)
    pieces = [each for each in cut(str(real), segment_s=1.0) if each.start_s < SECONDS / 2]
    pieces += [each for each in cut(str(fake), segment_s=1.0) if each.start_s >= SECONDS / 2]
    for number, piece in enumerate(pieces):
        query = {"sequence": number, "start_s": piece.start_s}
        headers = {"Content-Type": "video/mp2t"}
        address = f"/v1/streams/{NAME}/segments"
        sender.post(address, params=query, content=piece.media, headers=headers).raise_for_status()

        def is_judged(count: int = number + 1) -> bool:
            answer = reviewer.get(f"/v1/streams/{NAME}")
            return answer.status_code == 200 and answer.json()["segments"] >= count

        until(is_judged)


def _picture(served: Served) -> None:
    with launched_chromium() as browser:
        tab = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}).new_page()
        sign_in(tab, served.url, served.key(Role.REVIEW))
        tab.goto(f"{served.url}/streams")
        tab.locator(f"[data-stream='{NAME}'] .curve").first.wait_for()
        tab.screenshot(path=FOLDER / "streams.jpg", type="jpeg", quality=85)


if __name__ == "__main__":
    main()
