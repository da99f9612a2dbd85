"""Sign-in by a provider: a real one on this machine, by real HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey
from playwright.sync_api import Browser, expect

from tests.web.provider import CLIENT_ID, CLIENT_SECRET, FakeProvider, providing
from tests.web.served import Served, serving
from web.keys import Role
from web.oidc import Provider
from web.oidc_options import OidcOptions, OidcOptionsError, RoleMapping
from web.service import COOKIE

UNMASK = Path(sys.executable).with_name("unmask")
ROLES = RoleMapping.parse("groups=desk:review,leads:senior,it:admin")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, FakeProvider]]:
    with (
        providing() as provider,
        serving(tmp_path_factory.mktemp("oidc"), requests_s=1e6, unknown_keys_s=1e6) as served,
    ):
        yield served, provider


@pytest.fixture
def provider(site: tuple[Served, FakeProvider]) -> FakeProvider:
    """It behaves well; the service knows nothing of it yet."""
    served, provider = site
    provider.reset()
    provider.claims = {"groups": ["desk"]}
    options = OidcOptions(provider.url, CLIENT_ID, CLIENT_SECRET, ROLES, served.url)
    served.service.provider = Provider(options)
    return provider


@pytest.fixture
def client(site: tuple[Served, FakeProvider], provider: FakeProvider) -> Iterator[httpx.Client]:
    """A browser."""
    with httpx.Client(base_url=site[0].url, follow_redirects=True, timeout=60) as client:
        yield client


def me(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/v1/me").json()
    return found


def test_a_person_signs_in_and_out(client: httpx.Client, provider: FakeProvider) -> None:
    assert 'href="/login/oidc"' in client.get("/login").text
    page = client.get("/login/oidc")
    assert page.status_code == 200
    assert 'content="0;url=/videos"' in page.text
    person = me(client)
    assert (person["name"], person["role"]) == ("Ada Lovelace", "review")
    token = client.get("/videos").text.partition('name="csrf" content="')[2].partition('"')[0]
    out = client.post("/logout", data={"csrf": token})
    assert out.url.path == "/login"
    assert me(client)["code"] == "no_key"
    # The same person later, with another name and role.
    provider.claims = {"groups": ["desk", "it"], "name": "Ada\u202e King\n"}
    client.get("/login/oidc")
    assert me(client) | {"name": "Ada King", "role": "admin"} == me(client)
    assert me(client)["id"] == person["id"]


def test_a_person_can_sign_out_at_the_provider_too(
    site: tuple[Served, FakeProvider], client: httpx.Client, provider: FakeProvider
) -> None:
    def sign_out() -> httpx.Response:
        token = client.get("/videos").text.partition('name="csrf" content="')[2].partition('"')[0]
        return client.post("/logout", data={"csrf": token})

    provider.listed = {"end_session_endpoint": f"{provider.url}/out?a=1"}
    client.get("/login/oidc")
    out = sign_out()
    assert f'href="{provider.url}/out?a=1&amp;client_id={CLIENT_ID}"' in out.text
    assert me(client)["code"] == "no_key"
    # With a key there is no session there.
    client.post("/login", data={"key": site[0].key(Role.REVIEW)})
    assert sign_out().url.path == "/login"


def test_people_of_other_subjects_are_others(client: httpx.Client, provider: FakeProvider) -> None:
    ids = set()
    for subject in ("s-10", "s-11"):
        provider.claims = {"groups": ["desk"], "sub": subject}
        client.get("/login/oidc")
        ids.add(me(client)["id"])
    assert len(ids) == 2


def test_a_person_is_no_key(site: tuple[Served, FakeProvider], client: httpx.Client) -> None:
    client.get("/login/oidc")
    for secret in ("", "a" * 43):
        header = {"Authorization": f"Bearer unmask_{me(client)['id']}_{secret}"}
        assert httpx.get(f"{site[0].url}/v1/me", headers=header).status_code == 401
    (row,) = (key for key in site[0].client().get("/v1/keys").json() if key["id"] == me(client)["id"])
    assert row["revoked_at"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": None}},
        {"claims": {"aud": "another"}},
        {"claims": {"aud": [CLIENT_ID, "another"]}},
        {"claims": {"iss": "http://127.0.0.1:1"}},
        {"claims": {"exp": int(time.time()) - 3600}},
        {"claims": {"exp": None}},
        {"claims": {"iat": int(time.time()) + 3600}},
        {"claims": {"sub": None}},
        {"claims": {"sub": ""}},
        {"claims": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
        {"key": RSAKey.generate_key(2048)},
        {"key": OctKey.import_key(CLIENT_SECRET), "header": {"alg": "HS256", "kid": "1"}},
        {"header": {"alg": "none", "kid": "1"}},
        {"header": {"alg": "RS256", "kid": "2"}},
        {"error": "access_denied"},
    ],
    ids=[
        "other nonce",
        "no nonce",
        "other audience",
        "two audiences",
        "other issuer",
        "expired",
        "no expiry",
        "from the future",
        "no subject",
        "empty subject",
        "other access token",
        "other key",
        "signed with the secret",
        "unsigned",
        "unknown key",
        "refused",
    ],
)
def test_tokens_that_are_not_right_sign_nobody_in(
    client: httpx.Client, provider: FakeProvider, wrong: dict[str, Any]
) -> None:
    for name, value in wrong.items():
        setattr(provider, name, {"groups": ["desk"]} | value if name == "claims" else value)
    page = client.get("/login/oidc")
    assert page.status_code == 403
    assert "The sign-in failed or has expired" in page.text
    assert COOKIE not in client.cookies


def test_an_answer_counts_once_and_in_its_browser(
    site: tuple[Served, FakeProvider], client: httpx.Client, provider: FakeProvider
) -> None:
    client.follow_redirects = False
    to_provider = client.get("/login/oidc").headers["location"]
    back = httpx.get(to_provider).headers["location"]
    assert httpx.get(back).status_code == 403  # another browser, which also ends this sign-in
    assert client.get(back).status_code == 403
    back = httpx.get(client.get("/login/oidc").headers["location"]).headers["location"]
    assert client.get(f"{back}&iss=http://127.0.0.1:1").status_code == 403
    back = httpx.get(client.get("/login/oidc").headers["location"]).headers["location"]
    assert client.get(back).status_code == 200
    client.cookies.delete(COOKIE)
    assert client.get(back).status_code == 403
    assert client.get("/login/oidc/callback").status_code == 403


def test_a_role_that_is_taken_away_ends_with_the_next_sign_in(client: httpx.Client, provider: FakeProvider) -> None:
    provider.claims = {"groups": ["desk"], "sub": "leaves"}
    client.get("/login/oidc")
    assert me(client)["role"] == "review"
    provider.claims = {"groups": ["others"], "sub": "leaves"}
    page = client.get("/login/oidc")
    assert page.status_code == 403
    assert "gives you no access here" in page.text
    assert me(client)["code"] == "no_key"


def test_who_was_revoked_stays_out(
    site: tuple[Served, FakeProvider], client: httpx.Client, provider: FakeProvider
) -> None:
    provider.claims = {"groups": ["desk"], "sub": "revoked"}
    client.get("/login/oidc")
    id_ = me(client)["id"]
    assert site[0].client().delete(f"/v1/keys/{id_}").status_code == 200
    assert me(client)["code"] == "no_key"
    assert client.get("/login/oidc").status_code == 403


def test_a_provider_that_is_away_is_said_on_the_page(
    site: tuple[Served, FakeProvider], client: httpx.Client, provider: FakeProvider
) -> None:
    options = OidcOptions("http://127.0.0.1:9", CLIENT_ID, CLIENT_SECRET, ROLES, site[0].url)
    site[0].service.provider = Provider(options)
    page = client.get("/login/oidc")
    assert page.status_code == 503
    assert "is not reachable" in page.text
    assert client.get("/login").status_code == 200


@pytest.mark.parametrize(
    "listed",
    [
        {"issuer": "https://another"},
        {"token_endpoint": "http://example.org/token"},
        {"authorization_response_iss_parameter_supported": True},
    ],
)
def test_descriptions_that_lead_elsewhere_are_refused(
    client: httpx.Client, provider: FakeProvider, listed: dict[str, Any]
) -> None:
    provider.listed = listed
    assert client.get("/login/oidc").status_code == 403


def test_a_browser_keeps_the_session(
    site: tuple[Served, FakeProvider], provider: FakeProvider, browser: Browser
) -> None:
    """The session's cookie is Strict, and the way back from the provider is a foreign one."""
    provider.asks = True
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site[0].url}/login")
    page.get_by_role("link", name="Sign in with your organisation").click()
    page.get_by_role("link", name="Continue").click()
    expect(page.locator(".who")).to_contain_text("Ada Lovelace", timeout=120_000)
    context.close()


def test_without_a_provider_there_is_no_way(served: Served) -> None:
    client = served.client(None)
    assert "/login/oidc" not in client.get("/login").text
    for path in ("/login/oidc", "/login/oidc/callback"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("text", "claims", "role"),
    [
        ("groups=a:review,b:senior", {"groups": ["a", "b", 3, None]}, Role.SENIOR),
        ("groups=a:review", {"groups": "a"}, Role.REVIEW),
        ("groups=a:review", {"groups": ["b"]}, None),
        ("groups=a:review", {}, None),
        ("groups=a:review,*:submit", {}, Role.SUBMIT),
        ("realm_access.roles=a:review", {"realm_access": {"roles": ["a"]}}, Role.REVIEW),
        ("https://x.example/roles=urn:a:review", {"https://x.example/roles": ["urn:a"]}, Role.REVIEW),
    ],
)
def test_claims_give_roles(text: str, claims: dict[str, Any], role: Role | None) -> None:
    assert RoleMapping.parse(text).role_of(claims) is role


@pytest.mark.parametrize(
    "text", ["", "groups", "groups=", "groups=a", "=a:review", "groups=a:chief", "groups=a:review,a:admin"]
)
def test_mappings_that_are_not_clear_are_refused(text: str) -> None:
    with pytest.raises(OidcOptionsError, match="UNMASK_OIDC_ROLES"):
        RoleMapping.parse(text)


WHOLE = {
    "ISSUER": "https://sso.example.org/realms/desk",
    "CLIENT_ID": "unmask",
    "CLIENT_SECRET": "x",
    "ROLES": "groups=a:review",
    "PUBLIC_URL": "https://unmask.example.org/",
}


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OidcOptions.from_environment() is None
    for name, value in WHOLE.items():
        monkeypatch.setenv(f"UNMASK_OIDC_{name}", value)
    found = OidcOptions.from_environment()
    assert found is not None
    assert found.redirect_uri == "https://unmask.example.org/login/oidc/callback"
    for name, value in (("ISSUER", "http://sso.example.org"), ("PUBLIC_URL", "https://x.example/unmask")):
        with monkeypatch.context() as patch:
            patch.setenv(f"UNMASK_OIDC_{name}", value)
            with pytest.raises(OidcOptionsError, match=f"UNMASK_OIDC_{name}"):
                OidcOptions.from_environment()
    monkeypatch.setitem(sys.modules, "authlib", None)
    with pytest.raises(OidcOptionsError, match=r"pip install 'unmask\[oidc\]'"):
        OidcOptions.from_environment()


def test_half_of_the_settings_end_the_start(tmp_path: Path) -> None:
    command = [str(UNMASK), "serve", "--folder", str(tmp_path / "served"), "--port", "0"]
    environment = os.environ | {"UNMASK_OIDC_ISSUER": "https://sso.example.org", "UNMASK_OIDC_CLIENT_ID": "unmask"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 2
    for name in ("CLIENT_SECRET", "ROLES", "PUBLIC_URL"):
        assert f"UNMASK_OIDC_{name}" in done.stderr
