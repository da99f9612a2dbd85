"""Options of the sign-in by an OpenID Connect provider, from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, ClassVar, Final, Self
from urllib.parse import urlsplit

from pydantic import Field

from models.errors import UnmaskError
from pipeline.environment import FromEnvironment
from web.keys import Role

CALLBACK: Final = "/login/oidc/callback"
_NEEDED: Final = ("authlib", "httpx", "joserfc")
# Of a mapping: every value, and none at all.
_ANY: Final = "*"


class OidcOptionsError(UnmaskError):
    """The sign-in cannot be set up."""


class _Variables(FromEnvironment):
    """Their variables, as given."""

    prefix: ClassVar[str] = "UNMASK_OIDC_"
    ignore_empty: ClassVar[bool] = True

    issuer: str | None = Field(default=None, description="address of the provider, as its tokens have it")
    client_id: str | None = Field(default=None, description="of this service, as registered there")
    client_secret: str | None = Field(default=None, description="of this service")
    roles: str | None = Field(default=None, description="claim and roles, groups=desk:review,leads:senior")
    public_url: str | None = Field(default=None, description="address of this service in people's browsers")


@dataclass(frozen=True, slots=True)
class RoleMapping:
    """Which roles the values of a claim give.

    Attributes:
        claim: its name; dots lead into objects (`realm_access.roles`).
        roles: by value.
        default: of those without a known value; None: they may not sign in.
    """

    claim: str
    roles: dict[str, Role]
    default: Role | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`groups=desk:review,leads:senior`; `*:submit` is the role of all others.

        Raises:
            OidcOptionsError: it is not of this form, or a role does not exist.
        """
        claim, _, rest = text.partition("=")
        roles: dict[str, Role] = {}
        for pair in rest.split(","):
            value, _, role = pair.strip().rpartition(":")
            if not claim.strip() or not value or value in roles:
                raise OidcOptionsError(
                    f"UNMASK_OIDC_ROLES: expected CLAIM=VALUE:ROLE,VALUE:ROLE with each value once, got {text!r}"
                )
            try:
                roles[value] = Role.of(role.strip())
            except ValueError as error:
                raise OidcOptionsError(f"UNMASK_OIDC_ROLES: {error}") from error
        default = roles.pop(_ANY, None)
        return cls(claim.strip(), roles, default)

    def role_of(self, claims: dict[str, Any]) -> Role | None:
        """The highest role that these claims give; None: none."""
        found: Any = claims.get(self.claim)
        if found is None:
            found = claims
            for part in self.claim.split("."):
                found = found.get(part) if isinstance(found, dict) else None
        values = found if isinstance(found, list) else [found]
        given = [self.roles[value] for value in values if isinstance(value, str) and value in self.roles]
        return max(given, default=self.default)


@dataclass(frozen=True, slots=True)
class OidcOptions:
    """How people sign in by a provider.

    Attributes:
        issuer: address of the provider, as its tokens have it.
        client_id: of this service.
        client_secret: of this service.
        roles: who gets which role.
        public_url: address of this service in people's browsers, without a slash at its end.
    """

    issuer: str
    client_id: str
    client_secret: str
    roles: RoleMapping
    public_url: str

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends people back to; it is registered there."""
        return self.public_url + CALLBACK

    @classmethod
    def from_environment(cls) -> Self | None:
        """The options; None: no variable is set.

        Raises:
            OidcOptionsError: some are missing or invalid, or the extra `oidc` is not installed.
        """
        found = _Variables()
        given = found.model_dump(exclude_none=True)
        if not given:
            return None
        if missing := [f"UNMASK_OIDC_{name.upper()}" for name in _Variables.model_fields if name not in given]:
            raise OidcOptionsError(f"sign-in by a provider also needs {', '.join(missing)}; see docs/api.md")
        if any(find_spec(name) is None for name in _NEEDED):
            raise OidcOptionsError("sign-in by a provider needs an extra: pip install 'unmask[oidc]'")
        public_url = given["public_url"].rstrip("/")
        for name, url in (("ISSUER", given["issuer"]), ("PUBLIC_URL", public_url)):
            if not is_private_way(url) or urlsplit(url).query or urlsplit(url).fragment:
                raise OidcOptionsError(
                    f"UNMASK_OIDC_{name}: expected an https address (http on this machine only), got {url!r}"
                )
        if urlsplit(public_url).path:
            raise OidcOptionsError(f"UNMASK_OIDC_PUBLIC_URL: expected an address without a path, got {public_url!r}")
        mapping = RoleMapping.parse(given["roles"])
        return cls(given["issuer"], given["client_id"], given["client_secret"], mapping, public_url)


def is_private_way(url: str) -> bool:
    """Whether others cannot listen on the way to it: https, or http that does not leave this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    if parts.scheme != "http":
        return False
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
