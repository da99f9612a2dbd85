"""/v1/uploads: the tus protocol, a lost connection, a service that is killed."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline.contracts import SourceClass
from pipeline.settings import Settings
from tests.web.served import Served, serving, until
from tests.web.test_restart import started
from web.keys import Role
from web.service import ServeOptions, Service
from web.videos import Upload

BYTES = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def metadata(**pairs: str) -> str:
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())


@pytest.fixture
def client(served: Served) -> httpx.Client:
    found = served.client(Role.SUBMIT)
    found.headers["Tus-Resumable"] = "1.0.0"
    return found


def begun(client: httpx.Client, length: int, **more: str) -> str:
    made = client.post("/v1/uploads", headers={"Upload-Length": str(length), **more})
    assert made.status_code == 201, made.text
    return made.headers["location"]


def sent(client: httpx.Client, path: str, offset: int, data: bytes, **more: str) -> httpx.Response:
    return client.patch(path, content=data, headers={**BYTES, "Upload-Offset": str(offset), **more})


def files(served: Served) -> set[Path]:
    return {path for path in (served.service.options.folder / "media").rglob("*") if path.is_file()}


def test_pieces_become_one_video(client: httpx.Client, one_face: Path) -> None:
    content = one_face.read_bytes()
    said = metadata(filename="C:\\clips\\Größe.mp4", source_class="archive", start_s="1", end_s="3.5", other="x")
    path = begun(client, len(content), **{"Upload-Metadata": said})
    step, offset, answer = len(content) // 3, 0, None
    while offset < len(content):
        answer = sent(client, path, offset, content[offset : offset + step])
        assert answer.status_code == 204, answer.text
        offset = int(answer.headers["upload-offset"])
        assert ("unmask-video" in answer.headers) == (offset == len(content))
    assert answer is not None
    head = client.head(path)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == (str(len(content)),) * 2
    assert (head.headers["upload-metadata"], head.headers["cache-control"]) == (said, "no-store")
    video = client.get(answer.headers["unmask-video"]).json()
    assert (video["name"], video["source_class"]) == ("Größe.mp4", "archive")
    assert video["sha256"] == hashlib.sha256(content).hexdigest()
    assert (video["start_s"], video["end_s"], video["media_type"]) == (1.0, 3.5, "video/mp4")
    assert client.get(path).json()["video"] == video["links"]["self"]
    until(lambda: client.get(video["links"]["self"]).json()["state"] == "done")
    verdict = client.get(video["links"]["self"]).json()["verdict"]
    assert verdict["part"] == {"start_s": 1.0, "end_s": 3.5}
    assert client.delete(path).status_code == 204
    assert client.head(path).status_code == 404
    assert client.get(f"{video['links']['self']}/media").content == content


def test_the_first_bytes_may_come_with_the_creation(client: httpx.Client, one_face: Path) -> None:
    content = one_face.read_bytes()
    headers = {**BYTES, "Upload-Length": str(len(content)), "Idempotency-Key": "a"}
    made = client.post("/v1/uploads", content=content[:1000], headers=headers)
    assert (made.status_code, made.headers["upload-offset"]) == (201, "1000")
    again = client.post("/v1/uploads", headers={"Upload-Length": str(len(content)), "Idempotency-Key": "a"})
    assert again.headers["location"] == made.headers["location"]
    other = client.post("/v1/uploads", headers={"Upload-Length": "7", "Idempotency-Key": "a"})
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    override = {"X-HTTP-Method-Override": "PATCH", **BYTES, "Upload-Offset": "1000"}
    assert client.post(made.headers["location"], content=content[1000:], headers=override).status_code == 204
    whole = client.post("/v1/uploads", content=content, headers={**BYTES, "Upload-Length": str(len(content))})
    assert whole.headers["unmask-video"] != client.head(made.headers["location"]).headers["unmask-video"]


def test_a_lost_connection_goes_on_where_it_was(served: Served, client: httpx.Client, one_face: Path) -> None:
    content = one_face.read_bytes()
    path, half = begun(client, len(content)), len(content) // 2
    place = urlsplit(served.url)
    head = (
        f"PATCH {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        f"Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
        connection.sendall(head.encode() + content[:half])
        until(lambda: served.service.turns)
        # The service does not know yet that this connection will bring nothing more.
        offset = int(client.head(path).headers["upload-offset"])
        assert connection.recv(100).startswith(b"HTTP/1.1 409")
    assert 0 <= offset <= half
    assert "unmask-video" in sent(client, path, offset, content[offset:]).headers


def test_offsets_and_checksums_are_checked(client: httpx.Client, one_face: Path) -> None:
    content = one_face.read_bytes()
    path = begun(client, len(content))
    wrong = sent(client, path, 5, content[5:])
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["upload-offset"]) == (409, "conflict", "0")
    assert sent(client, path, 0, content + b"x").json()["code"] == "too_large"
    bad = f"sha1 {base64.b64encode(bytes(20)).decode()}"
    refused = sent(client, path, 0, content, **{"Upload-Checksum": bad})
    assert (refused.status_code, refused.json()["code"]) == (460, "checksum_mismatch")
    assert client.head(path).headers["upload-offset"] == "0"
    good = f"sha256 {base64.b64encode(hashlib.sha256(content).digest()).decode()}"
    assert sent(client, path, 0, content, **{"Upload-Checksum": good}).status_code == 204
    assert sent(client, path, 0, content, **{"Upload-Checksum": "md5 eA=="}).status_code == 409


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, "bad_request"),
        ({"Upload-Length": "-1"}, 400, "bad_request"),
        ({"Upload-Length": "0"}, 422, "no_media"),
        ({"Upload-Length": str(1 << 50)}, 413, "too_large"),
        ({"Upload-Defer-Length": "1"}, 400, "bad_request"),
        ({"Upload-Length": "9", "Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        ({"Upload-Length": "9", "Upload-Metadata": "filename !"}, 400, "bad_request"),
        ({"Upload-Length": "9", "Upload-Metadata": metadata(source_class="x")}, 422, "invalid"),
        ({"Upload-Length": "9", "Upload-Metadata": metadata(start_s="3", end_s="3")}, 422, "invalid"),
        ({"Upload-Length": "9", "Upload-Metadata": metadata(end_s="nan")}, 422, "invalid"),
    ],
)
def test_bad_beginnings_are_refused(client: httpx.Client, headers: dict[str, str], status: int, code: str) -> None:
    answer = client.post("/v1/uploads", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"


def test_what_is_no_media_is_deleted(served: Served, client: httpx.Client) -> None:
    before = files(served)
    for content in (b"MZ" + bytes(9000), b"short"):
        path = begun(client, len(content))
        assert sent(client, path, 0, content).json()["code"] == "no_media"
        assert client.head(path).status_code == 404
    assert files(served) == before


def test_uploads_are_seen_by_their_key_only(served: Served, client: httpx.Client) -> None:
    path = begun(client, 9)
    admin = served.client(Role.ADMIN)
    admin.headers["Tus-Resumable"] = "1.0.0"
    assert [admin.request(method, path).status_code for method in ("GET", "HEAD", "DELETE")] == [404] * 3
    assert sent(admin, path, 0, b"x").status_code == 404
    assert admin.head(path, headers={"Tus-Resumable": "0.2.2"}).status_code == 412
    assert httpx.head(served.url + path, headers={"Tus-Resumable": "1.0.0"}).status_code == 401
    about = httpx.options(f"{served.url}/v1/uploads")
    assert (about.status_code, about.headers["tus-version"]) == (204, "1.0.0")
    assert "creation-with-upload" in about.headers["tus-extension"]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "served", max_resumable=2, resumable_idle_s=0.0) as found:
        yield found


def test_idle_uploads_expire_and_their_number_is_limited(small: Served) -> None:
    client = small.client(Role.SUBMIT)
    client.headers["Tus-Resumable"] = "1.0.0"
    paths = [begun(client, 9) for _ in range(2)]
    refused = client.post("/v1/uploads", headers={"Upload-Length": "9"})
    assert (refused.status_code, refused.json()["code"]) == (429, "busy")
    assert len(files(small)) == 2
    small.service.resumable.expire()
    assert [client.head(path).status_code for path in paths] == [404, 404]
    assert files(small) == set()
    begun(client, 9)


def test_a_service_that_ended_before_the_video_was_made_makes_it_at_its_start(tmp_path: Path, one_face: Path) -> None:
    content, folder = one_face.read_bytes(), tmp_path / "served"
    earlier = Service(ServeOptions(folder), Settings())
    key, text = earlier.keys.create("a", Role.SUBMIT)
    made = earlier.resumable.create(key.id, Upload("a.mp4", SourceClass.UPLOAD), len(content), "")
    with earlier.resumable.writing(made) as appender:
        appender.write(content)
        appender.commit()
    lost = earlier.resumable.create(key.id, Upload("b.mp4", SourceClass.UPLOAD), 9, "")
    earlier.media.delete(lost.id)
    earlier.close()
    with serving(folder) as served:
        client = httpx.Client(
            base_url=served.url, headers={"Authorization": f"Bearer {text}", "Tus-Resumable": "1.0.0"}
        )
        served.clients.append(client)
        until(lambda: client.get(f"/v1/uploads/{made.id}").json()["video"] is not None)
        assert client.head(f"/v1/uploads/{made.id}").headers["unmask-video"] == f"/v1/videos/{made.id}"
        (video,) = client.get("/v1/videos").json()["videos"]
        assert (video["id"], video["sha256"]) == (made.id, hashlib.sha256(content).hexdigest())
        assert client.head(f"/v1/uploads/{lost.id}").status_code == 404


@pytest.mark.slow
def test_kill_9_costs_no_committed_byte_and_makes_one_video(tmp_path: Path, one_face: Path) -> None:
    content = one_face.read_bytes()
    half = len(content) // 2
    with started(tmp_path / "served") as service:
        key, client = service.key, service.client
        client.headers["Tus-Resumable"] = "1.0.0"
        path = begun(client, len(content))
        assert sent(client, path, 0, content[:half]).headers["upload-offset"] == str(half)
        os.kill(service.process.pid, signal.SIGKILL)
    with started(tmp_path / "served", key) as service:
        client = service.client
        client.headers["Tus-Resumable"] = "1.0.0"
        assert client.head(path).headers["upload-offset"] == str(half)
        # The bytes come, and the service is killed before, while or after it answers.
        threading.Thread(target=send_and_forget, args=(client, path, half, content[half:])).start()
        until(lambda: client.get(path).json()["offset"] == len(content))
        os.kill(service.process.pid, signal.SIGKILL)
    with started(tmp_path / "served", key) as service:
        client = service.client
        until(lambda: client.get(path).json()["video"] is not None)
        assert len(service.ids()) == 1
        video = client.get(client.get(path).json()["video"]).json()
        assert video["sha256"] == hashlib.sha256(content).hexdigest()


def send_and_forget(client: httpx.Client, path: str, offset: int, data: bytes) -> None:
    with suppress(httpx.TransportError):
        sent(client, path, offset, data)
