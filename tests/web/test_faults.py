"""Faults of the machine and of other people: the service goes on afterwards."""

from __future__ import annotations

import base64
import errno
import logging
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from pipeline.settings import Settings
from tests.web.served import Served, hand_in, judged, serving, until
from web.keys import Role
from web.listening import ListenError, check_proxies
from web.service import FolderError, ServeOptions, Service
from web.videos import MAX_CRASHES


@pytest.mark.parametrize("path", ["/v1/keys", "/v1/videos/x/decisions", "/login"])
def test_large_bodies_are_refused_before_they_are_read(served: Served, path: str) -> None:
    answer = httpx.post(served.url + path, content=b"[" * 70_000, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["x-request-id"]


def test_a_folder_belongs_to_one_service(served: Served) -> None:
    with pytest.raises(FolderError, match="another service uses this folder"):
        Service(ServeOptions(served.service.options.folder), Settings())


def test_judging_goes_on_after_a_database_was_locked(
    tmp_path: Path, one_face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("web.database._BUSY_S", 0.1)
    with serving(tmp_path / "served") as served:
        client = served.client()
        hand_in(client, one_face)
        other = sqlite3.connect(tmp_path / "served/unmask.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        served.service.judge.wake()
        until(lambda: client.get("/readyz").status_code == 503)
        assert "judging is held up" in client.get("/readyz").json()["detail"]
        other.execute("ROLLBACK")
        other.close()
        assert judged(client, one_face)["outcome"] == "scored"
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_service_that_ends_as_asked_takes_no_try(tmp_path: Path, one_face: Path) -> None:
    id_ = ""
    for _ in range(MAX_CRASHES):
        with serving(tmp_path / "served") as served:
            id_ = id_ or hand_in(served.client(), one_face, wait_s=0).json()["id"]
            until(lambda served=served, id_=id_: served.service.videos.get(id_).state != "queued")  # type: ignore[misc]
    with serving(tmp_path / "served") as served:
        until(lambda: served.service.videos.get(id_).state == "done")
        assert served.service.videos.get(id_).outcome == "scored"
        assert served.service.videos.get(id_).tries == 1


def test_videos_that_are_deleted_at_once_do_not_end_judging(served: Served, no_face: Path) -> None:
    client = served.client(Role.SUBMIT)
    for _ in range(30):
        id_ = hand_in(client, no_face, wait_s=0).json()["id"]
        assert client.delete(f"/v1/videos/{id_}").status_code == 204
    assert judged(client, no_face)["outcome"] == "no_face"
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "expires_at",
    ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00", "2020-01-01T00:00:00Z", "2100-01-01T00:00:00", "never"],
)
def test_keys_expire_at_a_moment_that_has_a_date(served: Served, expires_at: str) -> None:
    admin = served.client()
    answer = admin.post("/v1/keys", json={"name": "x", "role": "submit", "expires_at": expires_at})
    assert answer.status_code == 422
    assert admin.get("/v1/keys").status_code == 200


@pytest.mark.parametrize("cursor", ['["-created",1,10000000000000000000]', '["-created",1e400,1]', "[1]", "{}", "null"])
def test_made_up_cursors_are_refused(served: Served, cursor: str) -> None:
    text = base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")
    answer = served.client().get("/v1/videos", params={"cursor": text})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_an_address_that_tries_keys_is_slowed_down(tmp_path: Path) -> None:
    with serving(tmp_path / "served", unknown_keys_s=0.001) as served:
        known = served.client()
        assert known.get("/v1/me").status_code == 200
        wrong = {"Authorization": "Bearer unmask_aaaaaaaaaa_" + "a" * 43}
        statuses = [httpx.get(f"{served.url}/v1/me", headers=wrong).status_code for _ in range(3)]
        assert statuses[-1] == 429
        assert known.get("/v1/me").status_code == 200


@pytest.mark.parametrize(("proxies", "last"), [("", 429), ("127.0.0.1", 401)])
def test_only_a_proxy_says_who_asks(tmp_path: Path, proxies: str, last: int) -> None:
    wrong = "Bearer unmask_aaaaaaaaaa_" + "a" * 43
    with serving(tmp_path / "served", unknown_keys_s=0.001, proxies=proxies) as served:
        for i in range(3):
            headers = {"Authorization": wrong, "X-Forwarded-For": f"203.0.113.{i}"}
            answer = httpx.get(f"{served.url}/v1/me", headers=headers)
        assert answer.status_code == last


@pytest.mark.parametrize("proxies", ["proxy.example.org", "10.0.0.0/33", "127.0.0.1,not an address"])
def test_a_proxy_is_an_address(proxies: str) -> None:
    with pytest.raises(ListenError, match="is not the address of a proxy"):
        check_proxies(proxies)


def test_space_is_freed_where_a_disk_is_full(tmp_path: Path, one_face: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "served") as served:
        client = served.client()
        id_ = str(judged(client, one_face)["id"])
        file = served.service.media.path(id_)  # type: ignore[attr-defined]

        def full(id_: str, by: str) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(served.service.videos, "delete", full)
            answer = client.delete(f"/v1/videos/{id_}")
        assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
        assert not file.exists()
        assert client.delete(f"/v1/videos/{id_}").status_code == 204


def test_a_full_disk_is_said_and_nothing_is_accepted(
    served: Served, one_face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = served.client(Role.SUBMIT)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append  # type: ignore[method-assign]
    logging.getLogger("uvicorn.error").addHandler(handler)
    with monkeypatch.context() as patch:
        patch.setattr("web.media_folder.os", SimpleNamespace(**{**vars(os), "fsync": full}))
        answer = hand_in(client, one_face, wait_s=0)
    logging.getLogger("uvicorn.error").removeHandler(handler)
    assert [record for record in logged if record.exc_info] == []
    assert (answer.status_code, answer.json()["code"]) == (507, "no_space")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert client.get("/v1/videos").json()["videos"] == []
    assert judged(client, one_face)["outcome"] == "scored"


HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_pages_and_a_program_gets_problems(served: Served) -> None:
    client = served.client(None)
    client.post("/login", data={"key": served.key(Role.REVIEW)})
    for path, status in (("/videos?sort=bad", 422), ("/nowhere", 404), ("/videos?cursor=x", 422)):
        page = client.get(path, headers=HTML)
        assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert client.get(path).headers["content-type"] == "application/problem+json"
    assert client.get("/v1/videos?sort=bad", headers=HTML).headers["content-type"] == "application/problem+json"


def test_pages_are_limited_in_rate_and_cookies_are_sent_by_https_only(tmp_path: Path) -> None:
    with serving(tmp_path / "served", requests_s=0.5, secure=True) as served:
        client = served.client(None)
        answer = client.post("/login", data={"key": served.key()})
        kept = answer.headers["set-cookie"]
        assert {each.strip().lower() for each in kept.split(";")} >= {"httponly", "secure", "samesite=strict", "path=/"}
        cookie = {"Cookie": kept.partition(";")[0], **HTML}
        answers = [client.get("/videos", headers=cookie) for _ in range(3)]
        assert answers[0].status_code == 200
        assert (answers[-1].status_code, int(answers[-1].headers["retry-after"]) > 0) == (429, True)
        assert "Too many requests" in answers[-1].text
