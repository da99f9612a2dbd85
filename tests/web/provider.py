"""An OpenID Connect provider on this machine, which signs in whom the test names."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "unmask", "a secret: 100%"


class FakeProvider:
    """What it answers with; tests change its attributes.

    Attributes:
        url: of the provider.
        claims: of tokens, over the usual ones; None takes a claim away.
        header: of tokens.
        key: signs tokens; the published one is always the first one.
        listed: of the description, over the usual fields.
        error: answers to the sign-in, instead of a code.
        asks: the person clicks on the provider's page first.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._published = RSAKey.generate_key(2048, {"kid": "1"}, private=True)
        self._codes: dict[str, dict[str, str]] = {}
        self.reset()

    def reset(self) -> None:
        """Behave well, and sign in nobody with a role."""
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "1"}
        self.key: RSAKey | OctKey = self._published
        self.listed: dict[str, Any] = {}
        self.error: str | None = None
        self.asks = False

    def description(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        } | self.listed

    def keys(self) -> dict[str, Any]:
        return {"keys": [self._published.as_dict(private=False) | {"use": "sig"}]}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to."""
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        back = {"state": query["state"]}
        if self.error is not None:
            back["error"] = self.error
        else:
            code = secrets.token_urlsafe(8)
            self._codes[code] = query
            back["code"] = code
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The answer to a code; None: it is refused."""
        basic = base64.b64encode(f"{CLIENT_ID}:a+secret%3A+100%25".encode()).decode()
        asked = self._codes.pop(form["code"], None)
        if asked is None or authorization != f"Basic {basic}" or form["redirect_uri"] != asked["redirect_uri"]:
            return None
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != asked["code_challenge"]:
            return None
        now_s = int(time.time())
        claims = {"iss": self.url, "sub": "s-1", "aud": CLIENT_ID, "nonce": asked["nonce"], "name": "Ada Lovelace"}
        claims |= {"iat": now_s, "exp": now_s + 300} | self.claims
        claims = {name: value for name, value in claims.items() if value is not None}
        text = jwt.encode(self.header, claims, self.key, algorithms=[self.header["alg"]])
        return {"access_token": "x", "token_type": "Bearer", "id_token": text}


@contextmanager
def providing() -> Iterator[FakeProvider]:
    """Run the provider until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/.well-known/openid-configuration":
                self._answer(200, found.description())
            elif url.path == "/keys":
                self._answer(200, found.keys())
            else:
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                back = found.authorize(query)
                if found.asks:
                    self._send(200, f'<a href="{escape(back)}">Continue</a>'.encode(), "text/html")
                else:
                    self._send(303, b"", "text/plain", Location=back)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            token = found.token(form, self.headers.get("Authorization", ""))
            self._answer(200 if token else 400, token or {"error": "invalid_grant"})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            self._send(status, json.dumps(content).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    # For a browser another site than 127.0.0.1, where the service is.
    found = FakeProvider(f"http://localhost:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
