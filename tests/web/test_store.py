"""Uploads in the service's folder, and in stores: the same by HTTP, and nothing is left or lost when a store fails."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import fsspec
import pytest

from pipeline.settings import Settings
from tests.web import shelf
from tests.web.s3 import BUCKET, S3Server, s3_server
from tests.web.served import PATIENCE_S, Served, hand_in, serving, until
from tests.web.shelf import failing
from tests.web.test_restart import SERVE, started
from tests.web.test_resumable import begun, sent
from web.keys import Role
from web.media_store import media_of
from web.service import ServeOptions, Service
from web.store_uri import StoreError, StoreUri

SECRET = "s3cret"


@dataclass(frozen=True, slots=True)
class Kept:
    """A service, and what its store has."""

    served: Served
    ids: Callable[[], set[str]]

    def local(self) -> set[str]:
        """Names of files of uploads on the service's machine."""
        folder = self.served.service.options.folder
        return {path.name for name in ("media", "copies") for path in (folder / name).rglob("*") if path.is_file()}


def below(folder: Path) -> Callable[[], set[str]]:
    return lambda: {path.name for path in folder.glob("*/*")}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", server.options)
        yield server


def objects(server: S3Server, prefix: str) -> Callable[[], set[str]]:
    return lambda: {key.rpartition("/")[2] for key in server.objects if re.match(f"{prefix}/../", key)}


@contextmanager
def keeping(folder: Path, kind: str, server: S3Server | None = None) -> Iterator[Kept]:
    """A service that keeps uploads in a store of this kind."""
    shelf.register()
    (store := folder / "store").mkdir(parents=True)
    places = {
        "folder": (None, below(folder / "served" / "media")),
        "path": (str(store), below(store)),
        "shelf": (f"shelf://me:{SECRET}@{store}", below(store)),
    }
    if server is not None:
        places["s3"] = (f"s3://{BUCKET}/a/prefix", objects(server, "a/prefix"))
    uri, ids = places[kind]
    with serving(folder / "served", store=uri, requests_s=1e6, unknown_keys_s=1e6) as served:
        yield Kept(served, ids)


@pytest.fixture(scope="module", params=["folder", "path", "s3", "shelf"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, s3: S3Server) -> Iterator[Kept]:
    with keeping(tmp_path_factory.mktemp(request.param), request.param, s3) as found:
        yield found


@pytest.fixture
def shelved(tmp_path: Path) -> Iterator[Kept]:
    with keeping(tmp_path, "shelf") as found:
        yield found


def test_an_upload_is_kept_judged_served_and_deleted(kept: Kept, face: Path) -> None:
    client, before, content = kept.served.client(), kept.ids(), face.read_bytes()
    made = hand_in(client, face, wait_s=0)
    assert (made.status_code, made.json()["sha256"]) == (202, hashlib.sha256(content).hexdigest())
    id_ = made.json()["id"]
    assert kept.ids() == before | {id_}
    url = f"/v1/videos/{id_}"
    until(lambda: client.get(url).json()["state"] == "done")
    found = client.get(url)
    assert (found.json()["outcome"], found.json()["verdict"]["source"]) == ("scored", face.name)
    assert SECRET not in found.text
    assert client.get(f"{url}/crops/0/0").content[:3] == b"\xff\xd8\xff"
    assert client.get(f"{url}/credentials").status_code == 200
    assert client.delete(url).status_code == 204
    assert client.get(f"{url}/media").status_code == 404
    assert kept.ids() == before
    assert id_ not in kept.local()


def test_ranges_come_from_where_the_file_is(kept: Kept, face: Path) -> None:
    client, content = kept.served.client(), face.read_bytes()
    url = f"/v1/videos/{hand_in(client, face, wait_s=0).json()['id']}/media"
    size, whole = len(content), client.get(url)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, content, "bytes")
    for wanted, part in (
        ("bytes=100-199", content[100:200]),
        ("bytes=100-", content[100:]),
        ("bytes=-5", content[-5:]),
        (f"bytes=1-{size + 9}", content[1:]),
    ):
        answer = client.get(url, headers={"Range": wanted, "If-Range": whole.headers["etag"]})
        start = content.index(part) if part != content[-5:] else size - 5
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(part) - 1}/{size}"
    for headers in ({"Range": "bytes=0-1,5-6"}, {"Range": "bytes=0-1", "If-Range": '"other"'}):
        answer = client.get(url, headers=headers)
        assert (answer.status_code, answer.content) == (200, content)
    for bad in (f"bytes={size}-", "bytes=9-1", "bytes=-0", "bytes=-", "lines=1-2"):
        refused = client.get(url, headers={"Range": bad})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
        assert refused.json()["code"] == "bad_range"


def test_nothing_is_left_of_what_was_refused_repeated_or_cut_short(kept: Kept, face: Path) -> None:
    client, before, content = kept.served.client(), kept.ids(), face.read_bytes()
    assert client.post("/v1/videos", content=b"MZ" + bytes(9000)).json()["code"] == "no_media"
    assert client.post("/v1/videos", content=b"").json()["code"] == "no_media"
    form = {"file": ("a.png", content), "x": ("b.png", content)}
    assert client.post("/v1/videos", files=form, data={"start_s": "x"}).status_code == 422
    place = urlsplit(kept.served.url)
    with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
        head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: {client.headers['authorization']}\r\n"
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content[: len(content) // 2])
        until(lambda: kept.served.service.uploads)
    until(lambda: not kept.served.service.uploads)
    assert kept.ids() == before
    same = {"Idempotency-Key": "once"}
    ids = {hand_in(client, face, wait_s=0, **same).json()["id"] for _ in range(2)}
    assert (len(ids), kept.ids()) == (1, before | ids)


def test_an_upload_in_pieces_moves_to_the_store_before_the_last_answer(kept: Kept, face: Path) -> None:
    client, content, before = kept.served.client(), face.read_bytes(), kept.ids()
    client.headers["Tus-Resumable"] = "1.0.0"
    path = begun(client, len(content))
    assert sent(client, path, 0, content[:5000]).status_code == 204
    video = sent(client, path, 5000, content[5000:]).headers["unmask-video"]
    id_ = video.rpartition("/")[2]
    assert kept.ids() == before | {id_}
    assert client.get(f"{video}/media").content == content
    assert client.get(video).json()["sha256"] == hashlib.sha256(content).hexdigest()
    until(lambda: client.get(video).json()["state"] == "done")
    media = kept.served.service.options.folder / "media"
    assert id_ not in below(media)() or below(media)() == kept.ids()
    path = begun(client, 9)
    assert client.delete(path).status_code == 204
    assert path.rpartition("/")[2] not in kept.ids() | kept.local()


def test_a_large_upload_goes_to_s3_in_parts_and_is_read_in_blocks(tmp_path: Path, s3: S3Server, face: Path) -> None:
    content = face.read_bytes() + bytes(11 << 20)
    with serving(tmp_path / "served", store=f"s3://{BUCKET}/large") as served:
        client = served.client()
        s3.requests.clear()
        made = client.post("/v1/videos", content=content, headers={"Prefer": "wait=60"})
        puts = [key for method, key, _ in s3.requests if method == "PUT"]
        assert len(puts) == 3
        assert (s3.uploads, made.json()["outcome"]) == ({}, "scored")
        s3.requests.clear()
        media = f"{made.headers['location']}/media"
        assert client.head(media).headers["content-length"] == str(len(content))
        assert not [each for each in s3.requests if each[0] == "GET"]
        assert client.get(media).content == content
        ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", each) for method, _, each in s3.requests if method == "GET"]
        sizes = [int(found[2]) - int(found[1]) + 1 for found in ranges if found]
        assert len(sizes) == 3
        assert max(sizes) == 4 << 20
        small = client.get(f"{made.headers['location']}/crops/0/0/explanation")
        assert small.status_code == 200, small.text


def test_the_limit_holds_while_an_upload_streams(tmp_path: Path, s3: S3Server, face: Path) -> None:
    def chunks(mib: int) -> Iterator[bytes]:
        yield face.read_bytes()
        yield from (bytes(1 << 20) for _ in range(mib))

    with serving(tmp_path / "served", store=f"s3://{BUCKET}/limit", max_upload_bytes=7 << 20) as served:
        client = served.client()
        s3.requests.clear()
        refused = client.post("/v1/videos", content=chunks(8))
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        # A part was there already.
        assert [method for method, key, _ in s3.requests if "/" in key][:2] == ["POST", "PUT"]
        assert (s3.uploads, objects(s3, "limit")()) == ({}, set())
        assert client.post("/v1/videos", content=chunks(2)).status_code == 202


@pytest.mark.parametrize("work", ["open", "write", "commit", "info"])
def test_a_store_that_fails_refuses_an_upload_and_keeps_nothing(
    shelved: Kept, face: Path, work: str, capfd: pytest.CaptureFixture[str]
) -> None:
    client = shelved.served.client()
    content = face.read_bytes() + bytes(3 << 20)
    with failing(work):
        answer = client.post("/v1/videos", content=content)
        assert (answer.status_code, answer.json()["code"]) == (503, "away")
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/v1/videos").json()["videos"] == []
    assert shelved.ids() == set()
    assert shelved.local() == set()
    logged = capfd.readouterr()
    assert "the store is away" in logged.out + logged.err
    assert SECRET not in answer.text + logged.out + logged.err
    assert client.post("/v1/videos", content=content).status_code == 202


def test_a_complete_upload_waits_for_its_store(shelved: Kept, face: Path) -> None:
    client, content = shelved.served.client(), face.read_bytes()
    client.headers["Tus-Resumable"] = "1.0.0"
    path = begun(client, len(content))
    with failing("commit"):
        answer = sent(client, path, 0, content)
        assert (answer.status_code, answer.json()["code"]) == (503, "away")
        assert client.head(path).status_code == 503
        assert client.get(path).json()["offset"] == len(content)
        assert client.get("/v1/videos").json()["videos"] == []
    assert shelved.ids() == set()
    head = client.head(path)
    assert (head.status_code, shelved.ids()) == (200, {head.headers["unmask-video"].rpartition("/")[2]})


def test_what_is_accepted_waits_for_its_store(shelved: Kept, face: Path) -> None:
    client = shelved.served.client()
    until(lambda: client.get("/readyz").status_code == 200)
    with failing("cat_file"):
        url = hand_in(client, face, wait_s=0).headers["location"]
        until(lambda: client.get("/readyz").status_code == 503)
        assert "the store of uploaded files does not answer" in client.get("/readyz").json()["detail"]
    with failing("info", "rm_file"):
        for answer in (client.get(f"{url}/media"), client.delete(url)):
            assert (answer.status_code, answer.json()["code"]) == (503, "away")
        assert client.get(url).status_code == 200
    until(lambda: client.get(url).json()["state"] == "done")
    assert client.get(url).json()["outcome"] == "scored"
    assert client.delete(url).status_code == 204
    assert shelved.ids() == set()


def test_a_video_whose_object_someone_deleted_is_unavailable(shelved: Kept, tmp_path: Path, face: Path) -> None:
    client = shelved.served.client()
    with failing("cat_file"):
        url = hand_in(client, face, wait_s=0).headers["location"]
        for path in (tmp_path / "store").glob("*/*"):
            path.unlink()
    until(lambda: client.get(url).json()["state"] == "done")
    found = client.get(url)
    assert found.json()["outcome"] == "unavailable"
    assert str(tmp_path) not in found.text
    assert client.get(f"{url}/media").status_code == 404
    assert client.delete(url).status_code == 204


def test_a_start_deletes_what_was_not_accepted_and_nothing_else(tmp_path: Path, face: Path) -> None:
    others = ["ab/report.pdf", "x.mp4", f"cd/ab{'0' * 22}", "ab/ab", "deep/ab/" + "ab" * 12, f"ab/{'AB' * 12}"]
    with keeping(tmp_path, "shelf") as kept:
        id_ = hand_in(kept.served.client(), face).json()["id"]
        client = kept.served.client(Role.ADMIN)
        client.headers["Tus-Resumable"] = "1.0.0"
        path = begun(client, 9)
    store = tmp_path / "store"
    for name in (*others, f"ab/{'ab' * 12}"):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(b"x")
    with serving(tmp_path / "served", store=f"shelf://{store}") as served:
        (file,) = store.glob(f"*/{id_}")
        assert file.read_bytes() == face.read_bytes()
        assert {str(each.relative_to(store)) for each in store.rglob("*") if each.is_file()} == {
            *others, "unmask-service", f"{id_[:2]}/{id_}"
        }  # fmt: skip
        growing = served.service.options.folder / "media" / path.rpartition("/")[2][:2] / path.rpartition("/")[2]
        assert growing.is_file()


def test_a_file_that_is_read_is_not_moved(tmp_path: Path, face: Path) -> None:
    shelf.register()
    (store := tmp_path / "store").mkdir()
    (folder := tmp_path / "served").mkdir()
    media, id_ = media_of(f"shelf://{store}", folder, 1 << 30), "ab" * 12
    media.make(id_)
    media.grown(id_).write_bytes(face.read_bytes())
    media.take(id_)
    with media.local(id_) as path:
        media.release(id_)
        assert path.read_bytes() == face.read_bytes()
    media.remove_unknown({id_}, set())
    assert not path.exists()
    with media.local(id_) as copied:
        assert copied.read_bytes() == face.read_bytes()


def test_files_of_a_time_without_a_store_are_still_served(tmp_path: Path, face: Path) -> None:
    with serving(tmp_path / "served") as served:
        urls = [hand_in(served.client(), face).headers["location"] for _ in range(3)]
    names = [f"{id_[:2]}/{id_}" for id_ in (url.rpartition("/")[2] for url in urls)]
    shelf.register()
    store, media = tmp_path / "store", tmp_path / "served/media"
    # Someone has copied one, and a part of another one.
    for name, size in zip(names[:2], (None, 10), strict=True):
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(face.read_bytes()[:size])
    with serving(tmp_path / "served", store=f"shelf://{store}") as served:
        assert [(media / name).is_file() for name in names] == [False, True, True]
        client = served.client()
        for url in urls:
            assert client.get(f"{url}/media").content == face.read_bytes()
            assert client.delete(url).status_code == 204
    assert not [path for folder in (store, media) for path in folder.glob("*/*")]


def test_a_prefix_belongs_to_one_service(tmp_path: Path) -> None:
    shelf.register()
    (store := tmp_path / "store").mkdir()
    for i, uri in enumerate((f"shelf://{store}", str(store), f"file://{store}")):
        Service(ServeOptions(tmp_path / "one", store=uri), Settings()).close()
        with pytest.raises(StoreError, match="another service keeps its uploads there"):
            Service(ServeOptions(tmp_path / f"other{i}", store=uri), Settings())


@pytest.mark.parametrize(
    ("uri", "code", "reason"),
    [
        ("s3://uploads/prefix", 1, "s3://uploads/prefix: the store cannot be reached, read or written"),
        (f"ftp://me:{SECRET}@127.0.0.1:1/uploads", 1, "ftp://***@127.0.0.1:1/uploads: the store cannot be reached"),
        (f"nowhere://me:{SECRET}@host/uploads", 2, "Protocol not known: nowhere"),
    ],
)
def test_a_store_that_cannot_be_used_ends_the_start(tmp_path: Path, uri: str, code: int, reason: str) -> None:
    nobody = {"FSSPEC_S3_ENDPOINT_URL": "http://127.0.0.1:1", "FSSPEC_S3_KEY": "key", "FSSPEC_S3_SECRET": SECRET}
    environment = {**os.environ, **nobody, "UNMASK_SERVE_STORE": uri}
    command = [*SERVE, "--folder", str(tmp_path / "served")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr
    assert SECRET not in ended.stderr


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("memory://uploads", "memory keeps no uploads"),
        ("https://example.org/uploads", "https keeps no uploads"),
        ("simplecache::s3://uploads", "a store is a plain URI"),
        (f"s3://uploads/?token={SECRET}", "a store is a plain URI"),
        ("s3://", "expected a bucket or folder"),
        ("file://uploads", "expected an absolute path"),
        (f"sftp://me:{SECRET}@[host/x", "malformed"),
    ],
)
def test_uris_where_no_store_can_be_are_refused(uri: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as refused:
        StoreUri(uri).opened()
    assert SECRET not in str(refused.value)


def test_the_command_keeps_uploads_in_a_store(tmp_path: Path, s3: S3Server, face: Path) -> None:
    options = {**s3.options, "config_kwargs": {"retries": {"max_attempts": 0}}}
    settings = {"FSSPEC_S3": json.dumps(options)}
    command = (*SERVE, "--workers", "1", "--store", f"s3://{BUCKET}/command")
    with started(tmp_path / "served", command=command, **settings) as service:
        made = service.client.post("/v1/videos", content=face.read_bytes(), headers={"Prefer": "wait=60"})
        assert made.json()["outcome"] == "scored"
        assert objects(s3, "command")() == {made.json()["id"]}
        s3.is_away = True
        refused = service.client.post("/v1/videos", content=face.read_bytes())
        assert (refused.status_code, refused.json()["code"]) == (503, "away")
        s3.is_away = False
        assert service.client.delete(made.headers["location"]).status_code == 204
    assert objects(s3, "command")() == set()
