"""/v1/videos: hand in, follow, read, list, delete."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline.contracts import Outcome, Verdict
from tests.web.served import Served, hand_in, judged, until
from web.keys import Role


def files(served: Served) -> set[Path]:
    return {path for path in (served.service.options.folder / "media").rglob("*") if path.is_file()}


def test_an_upload_is_judged_and_its_record_is_that_of_a_scan(served: Served, one_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    found = judged(client, one_face)
    sha256 = hashlib.sha256(one_face.read_bytes()).hexdigest()
    assert (found["outcome"], found["name"], found["sha256"]) == ("scored", one_face.name, sha256)
    record = Verdict.model_validate_json(client.get(f"/v1/videos/{found['id']}/record").content)
    assert (record.id, record.source, record.provenance.source_sha256) == (found["id"], one_face.name, sha256)
    assert record.outcome is Outcome.SCORED
    assert record.frames_sampled == 8
    verdict = found["verdict"]
    assert isinstance(verdict, dict)
    assert verdict == {k: v for k, v in json.loads(record.to_json()).items() if k != "frames"}
    frames = client.get(f"/v1/videos/{found['id']}/frames", params={"from_s": 1, "to_s": 2.5}).json()["frames"]
    assert frames == [face.model_dump(mode="json") for face in record.frames if 1 <= face.t_s <= 2.5]
    crop = client.get(f"/v1/videos/{found['id']}/crops/0/0")
    assert crop.content[:3] == b"\xff\xd8\xff"
    assert client.get(f"/v1/videos/{found['id']}/crops/0/99").status_code == 404


def test_the_answer_may_wait_for_the_verdict(served: Served, one_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    at_once = hand_in(client, one_face, wait_s=0)
    assert at_once.status_code == 202
    assert at_once.json()["state"] in ("queued", "running")
    waited = hand_in(client, one_face, wait_s=60)
    assert (waited.status_code, waited.headers["preference-applied"]) == (200, "wait=60")
    assert waited.json()["label"] is not None


def test_a_form_brings_file_name_and_class(served: Served, one_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    with one_face.open("rb") as file:
        form = {"file": ("C:\\clips\\Größe.mp4", file, "video/mp4")}
        answer = client.post("/v1/videos", data={"source_class": "archive"}, files=form)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["name"], answer.json()["source_class"]) == ("Größe.mp4", "archive")
    assert answer.json()["sha256"] == hashlib.sha256(one_face.read_bytes()).hexdigest()


def test_a_repeated_request_is_the_same_upload(served: Served, one_face: Path, no_face: Path) -> None:
    client, other = served.client(Role.SUBMIT), served.client(Role.SUBMIT)
    first = hand_in(client, one_face, wait_s=0, **{"Idempotency-Key": "post-17"})
    again = hand_in(client, one_face, wait_s=0, **{"Idempotency-Key": "post-17"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]
    assert hand_in(other, one_face, wait_s=0, **{"Idempotency-Key": "post-17"}).json()["id"] != first.json()["id"]
    assert len(client.get("/v1/videos").json()["videos"]) == 1
    part = client.post("/v1/videos?start_s=1", content=one_face.read_bytes(), headers={"Idempotency-Key": "post-17"})
    other_file = client.post("/v1/videos", content=no_face.read_bytes(), headers={"Idempotency-Key": "post-17"})
    for refused in (part, other_file):
        assert (refused.status_code, refused.json()["code"]) == (422, "key_reused")
    assert len(client.get("/v1/videos").json()["videos"]) == 1


def test_only_a_part_is_judged(served: Served, one_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    content = one_face.read_bytes()
    ways = [
        client.post("/v1/videos", params={"start_s": 1, "end_s": 3}, content=content),
        client.post("/v1/videos", data={"start_s": "1.0", "end_s": "3"}, files={"file": ("a.mp4", content)}),
    ]
    for made in ways:
        assert made.status_code == 202, made.text
        url = made.headers["location"]
        until(lambda url=url: client.get(url).json()["state"] == "done")  # type: ignore[misc]
        found = client.get(url).json()
        assert (found["start_s"], found["end_s"], found["outcome"]) == (1.0, 3.0, "scored")
        assert found["verdict"]["part"] == {"start_s": 1.0, "end_s": 3.0}
        assert found["verdict"]["duration_s"] == pytest.approx(4.0, abs=0.05)
        frames = client.get(f"{url}/frames").json()["frames"]
        assert {1 <= face["t_s"] < 3 for face in frames} == {True}
    after = judged_with(client, content, start_s=100)
    assert (after["outcome"], after["label"]) == ("undecodable", None)
    assert "from 100 s to the end: it is 4.0 s long" in str(after["verdict"]["error"])


def judged_with(client: httpx.Client, content: bytes, **query: float) -> dict[str, Any]:
    answer = client.post("/v1/videos", params=query, content=content, headers={"Prefer": "wait=60"})
    until(lambda: client.get(answer.headers["location"]).json()["state"] == "done")
    found: dict[str, Any] = client.get(answer.headers["location"]).json()
    return found


@pytest.mark.parametrize(
    "part",
    [
        {"start_s": "-1"},
        {"end_s": "0"},
        {"start_s": "2", "end_s": "2"},
        {"start_s": "nan"},
        {"end_s": "inf"},
        {"end_s": "x"},
    ],
)
def test_impossible_parts_are_refused(served: Served, one_face: Path, part: dict[str, str]) -> None:
    client, content = served.client(Role.SUBMIT), one_face.read_bytes()
    numbers = {name: float(value) if value != "x" else value for name, value in part.items()}
    ways = [
        client.post("/v1/videos", params=part, content=content),
        client.post("/v1/videos", data=part, files={"file": ("a.mp4", content)}),
        client.post(
            "/v1/videos",
            content=json.dumps({"uri": "https://x/a.mp4", **numbers})[:-1] + "}",
            headers={"Content-Type": "application/json"},
        ),
    ]
    for answer in ways[:2]:
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid"), answer.text
    assert ways[2].status_code == 422
    assert client.get("/v1/videos").json()["videos"] == []


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "no_media"),
        (b"<!doctype html><script>", 415, "no_media"),
        (b"PK\x03\x04" + bytes(5000), 415, "no_media"),
        (b"MZ" + bytes(5000), 415, "no_media"),
        (b"{}", 415, "no_media"),
    ],
)
def test_what_is_no_media_is_refused_and_not_kept(served: Served, content: bytes, status: int, code: str) -> None:
    client, before = served.client(Role.SUBMIT), files(served)
    answer = client.post("/v1/videos", content=content, headers={"Content-Type": "video/mp4"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert files(served) == before
    assert client.get("/v1/videos").json()["videos"] == []


def test_media_that_cannot_be_decoded_has_a_typed_verdict(served: Served, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(5000))
    found = judged(served.client(), broken)
    assert (found["outcome"], found["label"], found["probability"]) == ("undecodable", None, None)
    assert str(served.service.options.folder) not in json.dumps(found)


def test_an_upload_that_is_cut_short_leaves_nothing(served: Served, one_face: Path) -> None:
    key, before = served.key(Role.SUBMIT), files(served)
    place = urlsplit(served.url)
    content = one_face.read_bytes()
    with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
        head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {len(content)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + content[: len(content) // 2])
        until(lambda: any(path.suffix == ".part" for path in files(served) - before))
    until(lambda: files(served) == before)
    assert served.service.uploads == 0


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\nContent-Disposition: form-data; name=file\r\n\r\nabc",
        b"--x\r\nContent-Disposition: form-data; name=other\r\n\r\nabc\r\n--x--\r\n",
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--\r\n",
        b"nonsense",
        b"--x\r\n" + b"A" * 20_000 + b": b\r\n\r\n\r\n--x--\r\n",
    ],
)
def test_malformed_forms_are_refused(served: Served, body: bytes) -> None:
    before = files(served)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = served.client().post("/v1/videos", content=body, headers=headers)
    assert answer.status_code == 422, answer.text
    assert files(served) == before


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/x.mp4",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/x.mp4",
        "http://localhost:6379/",
        "gopher://x/",
        "simplecache::file:///etc/passwd",
        "s3://bucket/x",
        "",
    ],
)
def test_uris_are_refused_unless_they_are_allowed(served: Served, uri: str) -> None:
    answer = served.client().post("/v1/videos", json={"uri": uri})
    assert (answer.status_code, answer.json()["code"]) == (422, "uri_refused")


def test_pages_of_the_list_hold_each_video_once(served: Served, tmp_path: Path) -> None:
    client = served.client(Role.SUBMIT)
    (broken := tmp_path / "b.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(20))
    ids = [hand_in(client, broken, wait_s=0).json()["id"] for _ in range(7)]
    until(lambda: len(client.get("/v1/videos", params={"state": "done"}).json()["videos"]) == 7)
    for sort in ("created", "-created", "probability", "-probability"):
        seen, url = [], f"/v1/videos?limit=3&sort={sort}"
        while url:
            page = client.get(url).json()
            seen += [video["id"] for video in page["videos"]]
            url = page["next"]
        assert sorted(seen) == sorted(ids)
        assert seen == (ids[::-1] if sort.startswith("-") else ids)
    assert client.get("/v1/videos", params={"label": "fake"}).json()["videos"] == []
    assert len(client.get("/v1/videos", params={"outcome": "undecodable", "name": "B.M"}).json()["videos"]) == 7
    assert client.get("/v1/videos", params={"cursor": "nonsense"}).status_code == 422


def test_unchanged_videos_are_not_sent_again(served: Served, one_face: Path) -> None:
    client = served.client()
    url = f"/v1/videos/{judged(client, one_face)['id']}"
    etag = client.get(url).headers["etag"]
    for known in (etag, f'"x", W/{etag}', "*"):
        assert client.get(url, headers={"If-None-Match": known}).status_code == 304
    assert client.post(f"{url}/decisions", json={"decision": "real"}).status_code == 201
    changed = client.get(url, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["etag"] != etag) == (200, True)


def test_events_lead_to_the_verdict(served: Served, one_face: Path, three_faces: Path) -> None:
    client = served.client()
    for _ in range(2):  # both judges are busy, so that the third video waits
        hand_in(client, three_faces, wait_s=0)
    id_ = hand_in(client, one_face, wait_s=0).json()["id"]
    with client.stream("GET", f"/v1/videos/{id_}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [line for line in stream.iter_lines() if line and not line.startswith(":")]
    kinds = [line.removeprefix("event: ") for line in events[::2]]
    data = [json.loads(line.removeprefix("data: ")) for line in events[1::2]]
    assert set(kinds) <= {"state", "progress", "partial"}
    for partial in (event for kind, event in zip(kinds, data, strict=True) if kind == "partial"):
        assert partial.keys() == {"outcome", "label", "probability", "people", "frames"}
    assert data[-1] == {"state": "done", "outcome": "scored", "label": data[-1]["label"]}
    shares = [each["share"] for each in data if "share" in each]
    assert shares == sorted(shares)


def test_the_file_is_served_in_ranges(served: Served, one_face: Path) -> None:
    client = served.client()
    id_, content = judged(client, one_face)["id"], one_face.read_bytes()
    part = client.get(f"/v1/videos/{id_}/media", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert part.headers["content-type"] == "video/mp4"
    assert part.headers["content-security-policy"] == "sandbox"
    assert client.get(f"/v1/videos/{id_}/media").content == content
    for bad in (f"bytes={len(content)}-", "bytes=9-1", "bytes=x"):
        refused = client.get(f"/v1/videos/{id_}/media", headers={"Range": bad})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{len(content)}")
        assert (refused.headers["content-type"], refused.json()["code"]) == ("application/problem+json", "bad_range")


def test_head_is_get_without_its_body(served: Served, one_face: Path) -> None:
    client = served.client()
    id_, size = judged(client, one_face)["id"], str(one_face.stat().st_size)
    media = client.head(f"/v1/videos/{id_}/media")
    assert (media.status_code, media.headers["content-length"], media.content) == (200, size, b"")
    for path in (f"/v1/videos/{id_}", f"/v1/videos/{id_}/events", "/v1/videos", "/healthz", "/static/page.css"):
        assert (client.head(path).status_code, client.head(path).content) == (200, b"")
    assert client.head("/v1/videos/unknown").status_code == 404
    assert client.head(f"/v1/videos/{id_}/decisions").status_code == 405


def test_names_are_found_in_any_case(served: Served, one_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    client.post("/v1/videos", params={"name": "ÜBUNG Größe Ж.mp4"}, content=one_face.read_bytes())
    for part in ("übung", "GRÖSSE", "ж.MP4"):
        assert len(client.get("/v1/videos", params={"name": part}).json()["videos"]) == 1
    assert client.get("/v1/videos", params={"name": "ubung"}).json()["videos"] == []


def test_nothing_is_left_of_a_deleted_video(served: Served, one_face: Path) -> None:
    client, before = served.client(Role.SUBMIT), files(served)
    id_ = judged(client, one_face)["id"]
    assert len(files(served)) == len(before) + 1
    assert served.client(Role.REVIEW).delete(f"/v1/videos/{id_}").status_code == 403
    assert client.delete(f"/v1/videos/{id_}").status_code == 204
    assert client.get(f"/v1/videos/{id_}").status_code == 404
    assert files(served) == before
    rows = served.service.database.read().execute(
        "SELECT count(*) FROM portraits WHERE video NOT IN (SELECT n FROM videos)"
    )
    assert rows.fetchone()[0] == 0


def test_a_video_that_is_being_judged_can_be_deleted(served: Served, three_faces: Path) -> None:
    client = served.client()
    ids = [hand_in(client, three_faces, wait_s=0).json()["id"] for _ in range(3)]
    for id_ in ids:
        assert client.delete(f"/v1/videos/{id_}").status_code == 204
    assert judged(client, three_faces)["outcome"] == "scored"


@pytest.mark.parametrize("id_", ["none", "..%2f..%2fetc", "a" * 500, "%00", "'; DROP TABLE videos"])
@pytest.mark.parametrize("rest", ["", "/record", "/frames", "/media", "/events", "/crops/0/0"])
def test_unknown_videos_are_not_found(served: Served, id_: str, rest: str) -> None:
    assert served.client().get(f"/v1/videos/{id_}{rest}").status_code == 404
