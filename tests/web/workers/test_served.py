"""Videos and live streams by HTTP, judged by a worker."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

import httpx
import pytest
import redis
from playwright.sync_api import Browser, Page, expect

from pipeline.contracts import Topic, clip_key, frames_key, rescore_key, rescores_key, stream_key
from pipeline.live.cutter import Cut, cut
from pipeline.results.restore import restore
from pipeline.results.store import VerdictStore
from pipeline.transport.history import read_topic
from pipeline.transport.messages import MAX_SEGMENT_BYTES
from tests import media
from tests.e2e.known_media import CHANGES, re_encode
from tests.web.rescored import rescore
from tests.web.served import Served, judged, until
from tests.web.test_page import decided, when
from tests.web.workers.conftest import HOOK
from web.keys import Role
from web.tasks import Tasks
from web.webhooks import WebhookEvent

pytestmark = pytest.mark.usefixtures("worker")
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> list[Cut]:
    """Three seconds of a person, in segments of one second."""
    path = tmp_path_factory.mktemp("live") / "one.mp4"
    media.make_clip(path, seconds=3, seed=5)
    return list(cut(str(path), segment_s=1.0))


def records(bootstrap: str, id_: str) -> list[bytes | None]:
    """What was published under an id."""
    return [each.value for each in read_topic(bootstrap, Topic.VERDICTS) if each.key == id_.encode()]


def send(
    api: httpx.Client, stream_id: str, sequence: int, content: bytes, *, final: bool = False, kind: str = "video/mp2t"
) -> httpx.Response:
    query = {"sequence": sequence, "start_s": float(sequence), "final": final}
    headers = {"Content-Type": kind}
    return api.post(f"/v1/streams/{stream_id}/segments", params=query, content=content, headers=headers)


def test_an_upload_gets_the_workers_verdict(
    served: Served, store: VerdictStore, client: redis.Redis, bootstrap: str, one_face: Path, tmp_path: Path
) -> None:
    api = served.client()
    until(lambda: api.get("/readyz").status_code == 200)
    video = judged(api, one_face)
    assert (video["outcome"], video["name"], video["people"]) == ("scored", one_face.name, 1)
    verdict = video["verdict"]
    assert isinstance(verdict, dict)
    assert (verdict["source"], verdict["provenance"]["source_sha256"]) == (one_face.name, video["sha256"])
    id_ = str(video["id"])
    assert store.record(id_) is not None
    encoded = tmp_path / "copy.mp4"
    re_encode(one_face, encoded, *CHANGES["half the size"])
    copy = judged(api, encoded)
    assert len(api.get(f"/v1/videos/{id_}/frames").json()["frames"]) == verdict["frames_scored"]
    until(lambda: api.get(f"/v1/videos/{id_}").json()["complete"])
    assert api.get(f"/v1/videos/{id_}/crops/0/0").status_code == 200
    assert api.get(f"/v1/videos/{id_}/credentials").json()["state"] == "absent"
    explained = api.get(f"/v1/videos/{id_}/crops/0/0/explanation")
    assert (explained.status_code, "no network" in explained.text) == (409, True)
    until(lambda: api.get(f"/v1/videos/{copy['id']}/similar").json()["similar"])
    (found,) = api.get(f"/v1/videos/{copy['id']}/similar").json()["similar"]
    assert (found["id"], found["kind"]) == (id_, "same_content")
    assert api.delete(f"/v1/videos/{id_}").status_code == 204
    until(lambda: not client.exists(clip_key(id_), frames_key(id_)))
    # Nothing finds its content any more, and its record is not restored.
    assert id_.encode() not in {client.get(key) for key in client.scan_iter("unmask:content:*")}
    until(lambda: records(bootstrap, id_)[-1] is None)
    done = restore(bootstrap, store)
    assert store.record(id_) is None
    assert done.purged >= 1


def test_what_workers_judged_is_judged_again_here(
    served: Served, client: redis.Redis, redis_url: str, one_face: Path, fakes: Path
) -> None:
    api = served.client()
    id_ = str(judged(api, one_face)["id"])
    done = rescore(served, "--weights", fakes, "--run", "again", "--redis", redis_url)
    assert done.exit_code == 0, done.output
    (found,) = api.get(f"/v1/videos/{id_}/rescores").json()
    record = api.get(found["links"]["record"])
    before, after = api.get(f"/v1/videos/{id_}/record").json(), record.json()
    assert (after["source"], after["label"]) == (one_face.name, "fake")
    assert after["provenance"]["sampling"] == before["provenance"]["sampling"]
    assert client.hget(rescore_key("again", id_), "verdict") == record.content
    assert client.hget(clip_key(id_), "label") == before["label"].encode() != b"fake"
    assert api.delete(f"/v1/videos/{id_}").status_code == 204
    until(lambda: not client.exists(clip_key(id_), rescore_key("again", id_), rescores_key(id_)))


@pytest.mark.parametrize(("uri", "code"), [("file:///etc/passwd", "uri_refused"), ("ftp:/a", "uri_refused")])
def test_what_workers_could_not_read_is_refused(served: Served, uri: str, code: str) -> None:
    answer = served.client().post("/v1/videos", json={"uri": uri})
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_a_part_of_an_upload_is_judged_by_workers(served: Served, one_face: Path) -> None:
    api = served.client()
    query = {"name": one_face.name, "start_s": 1, "end_s": 2}
    url = api.post("/v1/videos", params=query, content=one_face.read_bytes()).headers["location"]
    until(lambda: api.get(url).json()["state"] == "done")
    verdict = api.get(url).json()["verdict"]
    assert (verdict["outcome"], verdict["part"]) == ("scored", {"start_s": 1.0, "end_s": 2.0})
    frames = api.get(f"{url}/frames").json()["frames"]
    assert {int(frame["t_s"]) for frame in frames} == {1}
    # Its print is of the part, so it is no copy of the whole.
    whole = judged(api, one_face)["id"]
    until(lambda: all(api.get(each).json()["complete"] for each in (url, f"/v1/videos/{whole}")))
    prints = served.service.database.read().execute("SELECT length(hashes) AS n FROM prints").fetchall()
    assert len({row["n"] for row in prints}) > 1


def test_segments_make_a_stream_that_ends_with_the_last_one(
    served: Served, client: redis.Redis, pieces: list[Cut]
) -> None:
    sender, reviewer = served.client(Role.SUBMIT), served.client(Role.REVIEW)
    stream_id = f"test-{uuid.uuid4()}"
    for number, piece in enumerate(pieces[:2]):
        answer = send(sender, stream_id, number, piece.media)
        assert (answer.status_code, answer.json()["sequence"]) == (202, number), answer.text
    url = f"/v1/streams/{stream_id}"
    until(lambda: reviewer.get(url).status_code == 200 and reviewer.get(url).json()["segments"] == 2)
    (listed,) = [each for each in reviewer.get("/v1/streams").json()["streams"] if each["id"] == stream_id]
    assert (listed["outcome"], listed["people"], listed["shed"], listed["missing"]) == ("scored", 1, 0, 0)
    assert {face["track"] for face in listed["scores"]} == {0}
    assert reviewer.get(url, params={"minutes": 0}).json()["scores"] == []
    assert sender.get("/v1/streams").status_code == 403

    other = served.client(Role.SUBMIT)
    assert send(other, stream_id, 2, pieces[2].media).json()["code"] == "conflict"
    assert send(sender, stream_id, 2, pieces[2].media, final=True).status_code == 202
    until(lambda: reviewer.get(url).json()["health"] == "ended")
    ended = reviewer.get(url).json()
    assert (ended["segments"], ended["verdict"]["source"]) == (3, f"stream:{stream_id}")
    until(lambda: stream_id not in [each["id"] for each in reviewer.get("/v1/streams").json()["streams"]])
    until(lambda: send(sender, stream_id, 3, pieces[2].media).status_code == 409)
    assert client.exists(stream_key(stream_id))


@pytest.mark.parametrize(
    ("stream_id", "sequence", "content", "kind", "expected"),
    [
        ("bad id", 0, b"x", "video/mp2t", (422, "invalid")),
        ("ends:frames", 0, b"x", "video/mp2t", (422, "invalid")),
        ("a", -1, b"x", "video/mp2t", (422, "invalid")),
        ("a", 0, b"", "video/mp2t", (422, "no_media")),
        ("a", 0, bytes(MAX_SEGMENT_BYTES + 1), "video/mp2t", (413, "too_large")),
        ("a", 0, b"x", "text/plain", (415, "no_media")),
    ],
)
def test_what_is_no_segment_is_refused(
    served: Served, stream_id: str, sequence: int, content: bytes, kind: str, expected: tuple[int, str]
) -> None:
    answer = send(served.client(Role.SUBMIT), stream_id, sequence, content, kind=kind)
    assert (answer.status_code, answer.json()["code"]) == expected
    assert served.client().get("/v1/streams/a").status_code == 404


def test_the_page_shows_uploads_and_streams(
    served: Served, browser: Browser, one_face: Path, pieces: list[Cut]
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(f"{served.url}/login")
    page.get_by_label("Key").fill(served.key(Role.REVIEW))
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/videos$"), timeout=PATIENCE_MS)
    # Its script hears of files from then on.
    page.wait_for_load_state("load")
    _upload_and_decide(page, one_face)
    _watch_a_stream(page, served, pieces)
    context.close()
    assert [each for each in wrong if "ERR_CONNECTION_RESET" not in each] == []


def _upload_and_decide(page: Page, path: Path) -> None:
    page.locator("[data-files]").set_input_files(path)
    done = page.locator("[data-uploads] li[data-done]")
    expect(done).to_contain_text("judged:", timeout=PATIENCE_MS)
    done.get_by_role("link").click()
    expect(page.locator("[data-stage]")).to_be_visible(timeout=PATIENCE_MS)
    # Untouched, the page shows the pictures when they come.
    expect(page.locator(".portrait img").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("[data-more]")).to_have_count(0)
    when(page, "document.querySelector('[data-player]').readyState >= 1")
    plot = page.locator("[data-plot]").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    plot.click(position={"x": box["width"] / 2, "y": 30})
    when(page, "Math.abs(document.querySelector('[data-player]').currentTime - 2) < 0.1")
    page.keyboard.press("1")
    expect(page.locator("[data-said]")).to_have_text("Fake: saved", timeout=PATIENCE_MS)
    assert decided(page) == ["Fake"]
    page.keyboard.press("u")
    expect(page.locator("[data-said]")).to_have_text("Fake: undone", timeout=PATIENCE_MS)
    assert decided(page) == []


def _watch_a_stream(page: Page, served: Served, pieces: list[Cut]) -> None:
    sender, stream_id = served.client(Role.SUBMIT), f"test-{uuid.uuid4()}"
    page.get_by_role("link", name="Live streams").click()
    expect(page).to_have_url(re.compile("/streams$"))
    assert send(sender, stream_id, 0, pieces[0].media).status_code == 202
    shown = page.locator(f"[data-stream='{stream_id}']")
    expect(shown.locator("svg.curve")).to_be_visible(timeout=PATIENCE_MS)
    page.route("**/streams", lambda route: route.abort("connectionreset"))
    expect(page.locator("[data-lost]")).to_be_visible(timeout=PATIENCE_MS)
    page.unroute("**/streams")
    expect(page.locator("[data-lost]")).to_be_hidden(timeout=PATIENCE_MS)
    assert send(sender, stream_id, 2, pieces[2].media, final=False).status_code == 202
    expect(shown.locator(".lost")).to_contain_text("missing", timeout=PATIENCE_MS)
    assert send(sender, stream_id, 1, pieces[1].media, final=True).status_code == 202
    expect(shown).to_have_count(0, timeout=PATIENCE_MS)


def test_a_webhook_hears_of_the_end(served: Served, pieces: list[Cut]) -> None:
    """What was stored for webhooks of the keys that may see it; how it is sent is tested elsewhere."""
    api = served.client(Role.SUBMIT)
    made = api.post("/v1/webhooks", json={"url": f"{HOOK}/", "events": [WebhookEvent.STREAM_ENDED]})
    assert made.status_code == 201, made.text
    stream_id = f"test-{uuid.uuid4()}"
    assert send(api, stream_id, 0, pieces[0].media, final=True).status_code == 202
    messages = f"/v1/webhooks/{made.json()['id']}/messages"
    until(lambda: [each["event"] for each in api.get(messages).json()] == ["stream.ended"])


def test_a_file_that_changed_gives_nothing(served: Served, one_face: Path, three_faces: Path) -> None:
    """Neither pictures, nor a print, nor Content Credentials are those of another file."""
    api, tasks = served.client(), Tasks(served.service.database)
    id_ = str(judged(api, one_face)["id"])
    until(lambda: api.get(f"/v1/videos/{id_}").json()["complete"])
    database = served.service.database
    with database.write() as rows:
        (n,) = rows.execute("SELECT n FROM videos WHERE id = ?", (id_,)).fetchone()
        rows.execute("UPDATE videos SET credentials = NULL WHERE n = ?", (n,))
        for table in ("portraits", "prints"):
            rows.execute(f"DELETE FROM {table} WHERE video = ?", (n,))
    with served.service.media.local(id_) as path:
        path.write_bytes(three_faces.read_bytes())
    tasks.new_pictures(id_)
    until(lambda: api.get(f"/v1/videos/{id_}").json()["complete"])
    assert api.get(f"/v1/videos/{id_}/crops/0/0").status_code == 404
    assert api.get(f"/v1/videos/{id_}/credentials").status_code == 404
    assert database.read().execute("SELECT 1 FROM prints WHERE video = ?", (n,)).fetchone() is None
