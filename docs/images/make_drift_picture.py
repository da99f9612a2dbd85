"""Makes drift.jpg, the picture of the page about freshness: a real service, real faces, Chromium.

Pictures of the research data's validation split are judged, the last of them at less than half their size. When they
arrived, when the weights were made and what people decided (the data's own labels) are staged. Run it from the root:

    unmask data clean "$UNMASK_DATA/faces/manifest.csv" clean  # finds landmarks
    unmask drift reference --manifest clean/manifest.parquet --out reference.json
    python -m docs.images.make_drift_picture reference.json
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from docs.images.size import check_size
from pipeline.drift.reference import read_reference
from pipeline.settings import data_dir
from pipeline.weights.age import DateSource, MadeWeights
from tests.browser import launched_chromium, sign_in
from tests.web.served import Served, hand_in, serving, until
from trainers.data.manifest import FAKE, Manifest
from web.drift import DAY_S, DriftOptions
from web.keys import Role

FOLDER = Path(__file__).parent
WIDTH_PX, HEIGHT_PX = 1280, 900
MAX_BYTES = 250_000
SHARD = "dfdc-val-00.tar"
# Pictures as they are, over three months, and then smaller ones.
BEFORE, NOW, SHRUNK = 150, 70, 0.45
AGE_DAYS = 131.0


def main() -> None:
    """Make the picture."""
    options = DriftOptions(read_reference(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch) / "served", drift=options) as served:
        _judge(served, Path(scratch))
        until(lambda: served.service.drift.report().weights)
        (weights,) = served.service.drift.report().weights
        made_s = time.time() - AGE_DAYS * DAY_S
        served.service.drift.use([MadeWeights(weights.sha256, weights.name, made_s, DateSource.CHECKPOINT)])
        served.service.drift.look(time.time())
        _picture(served)
    check_size(FOLDER / "drift.jpg", MAX_BYTES)


def _judge(served: Served, scratch: Path) -> None:
    data = data_dir()
    if data is None:
        raise SystemExit("UNMASK_DATA must name a folder of research data")
    rows = Manifest.read(data / "faces" / "manifest.csv")
    chosen = [i for i in range(len(rows)) if str(rows.path[i]).startswith(SHARD)]
    np.random.default_rng(0).shuffle(chosen)
    client, sent = served.client(), {}
    with tarfile.open(data / "faces" / SHARD) as shard:
        for number, row in enumerate(chosen[: BEFORE + NOW]):
            file = shard.extractfile(str(rows.path[row]).partition("/")[2])
            assert file is not None
            picture = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None
            # Crops are stored at one size; the reference has that of their sources.
            scale = float(rows.source_width[row]) / len(picture) * (1.0 if number < BEFORE else SHRUNK)
            smaller = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            edge = len(smaller) // 2
            framed = cv2.copyMakeBorder(smaller, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=(90, 90, 90))
            cv2.imwrite(str(path := scratch / f"{number}.png"), framed)
            answer = hand_in(client, path, wait_s=0)
            sent[answer.json()["id"]] = (number, "fake" if rows.label[row] == FAKE else "real")
    until(lambda: not client.get("/v1/videos", params={"state": "queued", "limit": 1}).json()["videos"])
    until(lambda: not client.get("/v1/videos", params={"state": "running", "limit": 1}).json()["videos"])
    now_s = time.time()
    with served.service.database.write() as table:
        for id_, (number, label) in sent.items():
            days = number % 5 if number >= BEFORE else (10 + number) * 0.55
            at_s = now_s - days * DAY_S
            table.execute("UPDATE videos SET created_s = ?, finished_s = ? WHERE id = ?", (at_s, at_s, id_))
            if number < BEFORE:
                table.execute("UPDATE videos SET round = 'closed', answer = ? WHERE id = ?", (label, id_))


def _picture(served: Served) -> None:
    with launched_chromium() as browser:
        tab = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}).new_page()
        sign_in(tab, served.url, served.key(Role.SENIOR))
        tab.goto(f"{served.url}/drift")
        tab.screenshot(path=FOLDER / "drift.jpg", type="jpeg", quality=85, full_page=True)


if __name__ == "__main__":
    main()
