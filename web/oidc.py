"""Sign-in by an OpenID Connect provider: authorization code flow with PKCE, as OpenID Connect Core 1.0 has it.

The provider is asked when a person signs in, never at the start: the service runs without it.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus

from models.errors import UnmaskError
from web.oidc_options import OidcOptions, is_private_way

# What a person may take at the provider, in seconds, and how many may be there at once; the oldest are forgotten.
FLOW_S: Final = 600.0
_MAX_FLOWS: Final = 1000
# Of an answer of the provider.
_TIMEOUT_S: Final = 10.0
# How long its description is kept, in seconds: anyone may ask for a sign-in.
_KNOWN_S: Final = 60.0
_MAX_ANSWER_BYTES: Final = 1 << 20
# Clocks may differ by so many seconds.
_LEEWAY_S: Final = 60
# Signatures with a key that only the provider has: no "none", and no HMAC with the client's secret.
_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_SCOPE: Final = "openid profile email"


class OidcError(UnmaskError):
    """Nobody was signed in.

    Attributes:
        is_away: the provider could not be asked.
    """

    def __init__(self, message: str, *, is_away: bool = False) -> None:
        super().__init__(message)
        self.is_away = is_away


@dataclass(frozen=True, slots=True)
class Flow:
    """A person who was sent to the provider.

    Attributes:
        browser: secret in a cookie of their browser.
        nonce: that the token must have.
        verifier: of PKCE (RFC 7636).
        ends_s: of the monotonic clock.
    """

    browser: str
    nonce: str
    verifier: str
    ends_s: float


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in.

    Attributes:
        subject: their id at the provider.
        name: to show.
        claims: of their token.
    """

    subject: str
    name: str
    claims: dict[str, Any]


class Provider:
    """The provider. Safe to share between threads.

    Args:
        options: see `OidcOptions`.
    """

    def __init__(self, options: OidcOptions) -> None:
        self.options = options
        self._flows: dict[str, Flow] = {}
        self._known: dict[str, Any] = {}
        self._known_until_s = 0.0
        self._lock = threading.Lock()

    def begin(self) -> tuple[str, str]:
        """Send a person to the provider.

        Returns:
            Where to, and the secret for a cookie of their browser.

        Raises:
            OidcError: the provider is away, or its description is invalid.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        endpoint = _endpoint(self._description(), "authorization_endpoint")
        state = secrets.token_urlsafe(32)
        now_s = time.monotonic()
        flow = Flow(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), now_s + FLOW_S)
        with self._lock:
            # By their end, since all last equally long.
            while self._flows and (len(self._flows) >= _MAX_FLOWS or next(iter(self._flows.values())).ends_s <= now_s):
                del self._flows[next(iter(self._flows))]
            self._flows[state] = flow
        url: str = prepare_grant_uri(
            endpoint,
            self.options.client_id,
            "code",
            redirect_uri=self.options.redirect_uri,
            scope=_SCOPE,
            state=state,
            nonce=flow.nonce,
            code_challenge=create_s256_code_challenge(flow.verifier),
            code_challenge_method="S256",
        )
        return url, flow.browser

    def finish(self, state: str, browser: str, code: str, *, issuer: str | None, error: str | None) -> Person:
        """The person whom the provider sent back.

        Args:
            state: of the request.
            browser: secret in the cookie.
            code: of the request.
            issuer: parameter `iss` of the request (RFC 9207), if it had one.
            error: of the request: the provider's reason for sending them back without a code.

        Raises:
            OidcError: the request is not the answer to `begin`, or is one for the second time, the provider is away,
                or its token is not valid.
        """
        with self._lock:
            flow = self._flows.pop(state, None)
        if flow is None or flow.ends_s <= time.monotonic():
            raise OidcError("this sign-in has expired, or was used before")
        if not hmac.compare_digest(flow.browser.encode(), browser.encode()):
            raise OidcError("this sign-in was begun in another browser")
        if error is not None:
            raise OidcError(f"the provider refused: {error}")
        if issuer is not None and issuer != self.options.issuer:
            raise OidcError("the answer is from another provider")
        description = self._description()
        if issuer is None and description.get("authorization_response_iss_parameter_supported") is True:
            raise OidcError("the answer does not say which provider it is from")
        token = self._token(description, flow, code)
        return self._person(description, token, flow.nonce)

    def sign_out_url(self) -> str | None:
        """Where a person ends their session at the provider (OpenID Connect RP-Initiated Logout 1.0); None: nowhere.

        Raises:
            OidcError: the provider is away, or its description is invalid.
        """
        from authlib.common.urls import add_params_to_uri

        description = self._description()
        if "end_session_endpoint" not in description:
            return None
        endpoint = _endpoint(description, "end_session_endpoint")
        url: str = add_params_to_uri(endpoint, [("client_id", self.options.client_id)])
        return url

    def _description(self) -> dict[str, Any]:
        """What the provider says about itself (OpenID Connect Discovery 1.0)."""
        if time.monotonic() < self._known_until_s:
            return self._known
        issuer = self.options.issuer
        found = _answer("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != issuer:
            raise OidcError(f"the provider calls itself {found.get('issuer')!r}, and UNMASK_OIDC_ISSUER is {issuer!r}")
        self._known, self._known_until_s = found, time.monotonic() + _KNOWN_S
        return found

    def _token(self, description: dict[str, Any], flow: Flow, code: str) -> dict[str, Any]:
        options = self.options
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri,
            "code_verifier": flow.verifier,
        }
        methods = description.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        # RFC 6749, section 2.3.1: both are form-encoded first.
        basic: tuple[str, str] | None = (quote_plus(options.client_id), quote_plus(options.client_secret))
        if "client_secret_basic" not in methods and "client_secret_post" in methods:
            basic = None
            form |= {"client_id": options.client_id, "client_secret": options.client_secret}
        return _answer("POST", _endpoint(description, "token_endpoint"), data=form, auth=basic)

    def _person(self, description: dict[str, Any], token: dict[str, Any], nonce: str) -> Person:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        text = token.get("id_token")
        if not isinstance(text, str):
            raise OidcError("the provider's answer has no ID token")
        try:
            keys = KeySet.import_key_set(_answer("GET", _endpoint(description, "jwks_uri")))  # type: ignore[arg-type]
            read = jwt.decode(text, keys, algorithms=list(_ALGORITHMS))
            claims = CodeIDToken(
                read.claims,
                read.header,
                {
                    "iss": {"essential": True, "value": self.options.issuer},
                    "aud": {"essential": True, "value": self.options.client_id},
                    "sub": {"essential": True},
                    "exp": {"essential": True},
                    "nonce": {"essential": True},
                },
                {"nonce": nonce, "client_id": self.options.client_id, "access_token": token.get("access_token")},
            )
            claims.validate(leeway=_LEEWAY_S)
        except OidcError:
            raise
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise OidcError(f"the ID token is not valid: {error or type(error).__name__}") from error
        names = (claims.get(name) for name in ("name", "preferred_username", "email"))
        subject = str(claims["sub"])
        return Person(subject, next((name for name in names if isinstance(name, str) and name), subject), dict(claims))


def _endpoint(description: dict[str, Any], name: str) -> str:
    found = description.get(name)
    if not isinstance(found, str) or not is_private_way(found):
        raise OidcError(f"the provider's description has no {name} by https")
    return found


def _answer(method: str, url: str, **sent: Any) -> dict[str, Any]:
    """The provider's answer, a JSON object of limited size."""
    import httpx

    body = b""
    try:
        with (
            httpx.Client(timeout=_TIMEOUT_S, headers={"Accept": "application/json"}) as client,
            client.stream(method, url, **sent) as answer,
        ):
            end_s = time.monotonic() + _TIMEOUT_S
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > _MAX_ANSWER_BYTES or time.monotonic() > end_s:
                    raise OidcError(f"{url}: the answer is too long, or too slow", is_away=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OidcError(f"{url}: {error or type(error).__name__}", is_away=True) from error
    if answer.status_code != 200:
        raise OidcError(f"{url}: answers {answer.status_code}", is_away=answer.status_code >= 500)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise OidcError(f"{url}: the answer is not JSON") from error
    if not isinstance(found, dict):
        raise OidcError(f"{url}: the answer is not a JSON object")
    return found
