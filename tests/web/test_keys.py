"""Who may do what: keys, roles, sessions."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.web.served import Served, judged
from web.commands.keys import app
from web.keys import Role
from web.problems import ProblemError
from web.rates import Rates
from web.service import COOKIE


def test_wrong_keys_all_get_the_same_answer(served: Served) -> None:
    admin, good = served.client(), served.key(Role.SUBMIT)
    revoked, expired = served.key(Role.ADMIN), served.key(Role.ADMIN)
    with served.service.database.write() as rows:
        rows.execute("UPDATE keys SET expires_s = ? WHERE id = ?", (time.time() - 1, expired.split("_")[1]))
    assert admin.delete(f"/v1/keys/{revoked.split('_')[1]}").status_code == 200
    swapped = good[:-1] + ("A" if good[-1] != "A" else "B")
    wrong = [revoked, expired, swapped, "unmask_aaaaaaaaaa_" + "a" * 43, "x", "unmask__"]
    answers = set()
    for text in wrong:
        answer = httpx.get(f"{served.url}/v1/me", headers={"Authorization": f"Bearer {text}"})
        assert answer.headers["www-authenticate"].startswith("Bearer")
        answers.add((answer.status_code, answer.json()["code"], answer.json()["detail"]))
    assert answers == {(401, "wrong_key", "this key is wrong, has expired or was revoked")}
    assert httpx.get(f"{served.url}/v1/me").json()["code"] == "no_key"
    assert httpx.get(f"{served.url}/v1/me", headers={"Authorization": f"Bearer {good}"}).json()["role"] == "submit"


def test_a_key_ends_when_it_is_revoked(served: Served) -> None:
    client, admin = served.client(Role.REVIEW), served.client()
    id_ = client.get("/v1/me").json()["id"]
    assert admin.delete(f"/v1/keys/{id_}").json()["revoked_at"] is not None
    assert client.get("/v1/me").status_code == 401


def test_those_who_submit_see_their_own_videos_only(served: Served, one_face: Path) -> None:
    client, other, reviewer = served.client(Role.SUBMIT), served.client(Role.SUBMIT), served.client(Role.REVIEW)
    id_ = judged(client, one_face)["id"]
    for rest in ("", "/record", "/frames", "/media", "/events", "/crops/0/0"):
        assert other.get(f"/v1/videos/{id_}{rest}").status_code == 404
    assert other.delete(f"/v1/videos/{id_}").status_code == 404
    assert other.get("/v1/videos").json()["videos"] == []
    assert reviewer.get(f"/v1/videos/{id_}").status_code == 200


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.REVIEW, Role.SENIOR])
def test_keys_are_for_admins(served: Served, role: Role) -> None:
    client = served.client(role)
    assert client.get("/v1/keys").status_code == 403
    assert client.post("/v1/keys", json={"name": "x", "role": "admin"}).status_code == 403
    assert client.delete("/v1/keys/aaaaaaaaaa").status_code == 403


def test_an_admin_makes_keys_whose_text_is_shown_once(served: Served) -> None:
    admin = served.client()
    made = admin.post("/v1/keys", json={"name": "desk", "role": "review", "expires_at": "2100-01-01T00:00:00Z"})
    assert made.status_code == 201
    text = made.json()["key"]
    assert httpx.get(f"{served.url}/v1/me", headers={"Authorization": f"Bearer {text}"}).json()["name"] == "desk"
    assert text.rsplit("_", 1)[1] not in admin.get("/v1/keys").text
    assert text.encode() not in (served.service.options.folder / "unmask.sqlite3").read_bytes()
    assert admin.post("/v1/keys", json={"name": "x", "role": "king"}).status_code == 422
    assert admin.post("/v1/keys", json={"name": "a\nb", "role": "submit"}).status_code == 422
    own = admin.get("/v1/me").json()["id"]
    assert admin.delete(f"/v1/keys/{own}").json()["code"] == "conflict"


def signed_in(served: Served, role: Role = Role.REVIEW) -> tuple[httpx.Client, str]:
    client = served.client(None)
    answer = client.post("/login", data={"key": served.key(role)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/videos")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = client.get("/videos").text
    return client, page.split('name="csrf" content="')[1].split('"')[0]


def test_a_session_changes_things_from_its_own_page_only(served: Served, one_face: Path) -> None:
    id_ = judged(served.client(), one_face)["id"]
    client, csrf = signed_in(served)
    url, body = f"/v1/videos/{id_}/decisions", {"decision": "fake"}
    assert client.get(f"/v1/videos/{id_}").status_code == 200
    assert client.post(url, json=body).json()["code"] == "foreign_page"
    assert client.post(url, json=body, headers={"X-CSRF-Token": csrf[:-1]}).json()["code"] == "foreign_page"
    foreign = {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}
    assert client.post(url, json=body, headers=foreign).json()["code"] == "foreign_page"
    assert client.post(url, json=body, headers={"X-CSRF-Token": csrf}).status_code == 201
    assert client.post("/logout", data={"csrf": "x"}).status_code == 403
    assert client.post("/logout", data={"csrf": csrf}).status_code == 303
    assert client.get("/v1/me").status_code == 401


def test_a_session_ends_with_its_key(served: Served) -> None:
    client, _ = signed_in(served)
    id_ = client.get("/v1/me").json()["id"]
    served.client().delete(f"/v1/keys/{id_}")
    assert client.get("/v1/me").status_code == 401
    assert client.get("/videos").headers["location"] == "/login"


def test_a_wrong_key_opens_no_session(served: Served) -> None:
    client = served.client(None)
    answer = client.post("/login", data={"key": "unmask_aaaaaaaaaa_" + "a" * 43})
    assert (answer.status_code, COOKIE in answer.headers.get("set-cookie", "")) == (401, False)


def test_names_and_comments_are_text_on_the_page(served: Served, one_face: Path) -> None:
    name = '<img src=x onerror="alert(1)">.mp4'
    admin = served.client()
    content = one_face.read_bytes()
    made = admin.post("/v1/videos", params={"name": name}, content=content, headers={"Prefer": "wait=60"}).json()
    decision = {"decision": "unsure", "reason": "<b>r</b>", "comment": "<script>alert(2)</script>"}
    assert admin.post(f"/v1/videos/{made['id']}/decisions", json=decision).status_code == 201
    client, _ = signed_in(served, Role.SENIOR)
    for page in (client.get("/videos"), client.get(f"/videos/{made['id']}")):
        assert "<img src=x" not in page.text
        assert "<script>alert" not in page.text
        assert "<b>r</b>" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "&lt;script&gt;alert(2)" in client.get(f"/videos/{made['id']}").text


def test_decisions_can_be_replaced_and_undone(served: Served, three_faces: Path) -> None:
    client, other, senior = served.client(Role.REVIEW), served.client(Role.REVIEW), served.client(Role.SENIOR)
    url = f"/v1/videos/{judged(client, three_faces)['id']}"
    for choice in ("fake", "real"):
        assert client.post(f"{url}/decisions", json={"decision": choice}).status_code == 201
    assert client.post(f"{url}/decisions", json={"decision": "unsure", "track": 1}).status_code == 201
    assert other.post(f"{url}/decisions", json={"decision": "fake"}).status_code == 201
    made = senior.get(url).json()["decisions"]
    assert [each["decision"] for each in made if each["undone_at"] is None] == ["real", "unsure", "fake"]
    assert client.delete(f"{url}/decisions/last").json()["decision"] == "unsure"
    assert client.delete(f"{url}/decisions/last").json()["decision"] == "real"
    counted = [each["decision"] for each in senior.get(url).json()["decisions"] if each["undone_at"] is None]
    assert counted == ["fake", "fake"], "the one that was replaced counts again"
    assert client.delete(f"{url}/decisions/last").json()["decision"] == "fake"
    assert client.delete(f"{url}/decisions/last").status_code == 404
    assert [each["decision"] for each in senior.get(url).json()["decisions"] if each["undone_at"] is None] == ["fake"]
    assert client.post(f"{url}/decisions", json={"decision": "fake", "track": 99}).status_code == 404
    assert client.post(f"{url}/decisions", json={"decision": "maybe"}).status_code == 422
    assert served.client(Role.SUBMIT).post(f"{url}/decisions", json={"decision": "fake"}).status_code == 403


def test_requests_beyond_the_rate_wait() -> None:
    now_s = 0.0
    rates = Rates(2.0, clock=lambda: now_s)
    for _ in range(8):
        rates.check("a")
    with pytest.raises(ProblemError) as refused:
        rates.check("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    rates.check("b")
    now_s = 0.5
    rates.check("a")
    with pytest.raises(ProblemError):
        rates.check("a")


def test_keys_on_the_command_line(served: Served) -> None:
    folder = ["--folder", str(served.service.options.folder)]
    made = CliRunner().invoke(app, ["create", "ci", "--role", "submit", "--days", "1", *folder])
    assert made.exit_code == 0
    text = made.stdout.strip()
    headers = {"Authorization": f"Bearer {text}"}
    assert httpx.get(f"{served.url}/v1/me", headers=headers).json()["role"] == "submit"
    id_ = text.split("_")[1]
    assert f"{id_}  submit  valid    ci" in CliRunner().invoke(app, ["list", *folder]).stdout
    assert CliRunner().invoke(app, ["revoke", id_, *folder]).exit_code == 0
    assert httpx.get(f"{served.url}/v1/me", headers=headers).status_code == 401
    assert CliRunner().invoke(app, ["create", "x", "--role", "king", *folder]).exit_code == 2
    assert CliRunner().invoke(app, ["list", "--folder", "/nowhere"]).exit_code == 2
