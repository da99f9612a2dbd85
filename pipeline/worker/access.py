"""Which URIs a worker may read: a task must not give access to the worker's own files or network."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from pipeline.contracts import Outcome
from pipeline.sources import SourceError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")


@dataclass(frozen=True, slots=True)
class UriAllow:
    """The schemes and roots of `UNMASK_URI_ALLOW`.

    Attributes:
        schemes: of which every URI may be read.
        roots: (scheme, host or bucket, path) below which URIs may be read; of files the path is resolved.
    """

    schemes: frozenset[str]
    roots: tuple[tuple[str, str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a list with commas: `file`, `/srv/videos` or `file:///srv/videos`, `s3://bucket/inbox`, `https://media.example.org`.

        Raises:
            ValueError: an entry is neither a scheme nor a URI with a host or an absolute path.
        """
        schemes: set[str] = set()
        roots = []
        for entry in filter(None, map(str.strip, text.split(","))):
            if _SCHEME.fullmatch(entry):
                schemes.add(entry)
                continue
            scheme, host, path = _split(entry)
            if not scheme or not (host or path.startswith("/")) or (scheme == "file" and host):
                raise ValueError(f"{entry!r}: expected a scheme (file), or a URI that begins like file:///srv/videos")
            roots.append((scheme, host, os.path.realpath(path) if scheme == "file" else path.rstrip("/")))
        return cls(frozenset(schemes), tuple(roots))

    def check(self, uri: str) -> None:
        """Return if the URI may be read. Links are resolved first: those that lead out of a root are refused.

        Args:
            uri: a URI, a chain of them (`zip://a.mp4::file:///srv/a.zip`), or an absolute path.

        Raises:
            SourceError: it may not be read ("unavailable").
        """
        for link in [uri] if uri.startswith("/") else uri.split("::"):
            if not self._allows(link):
                raise SourceError(
                    Outcome.UNAVAILABLE, "may not be read: it is outside of what UNMASK_URI_ALLOW lists for this worker"
                )

    def _allows(self, uri: str) -> bool:
        scheme, host, path = _split(uri)
        if not scheme or (scheme == "file" and (host or not path.startswith("/"))):
            return False
        if scheme in self.schemes:
            return True
        if scheme == "file":
            path = os.path.realpath(path)
        elif ".." in unquote(path).replace("\\", "/").split("/") or "@" in host:
            return False
        return any(
            (scheme, host) == (root_scheme, root_host) and _below(path, root)
            for root_scheme, root_host, root in self.roots
        )


def _split(uri: str) -> tuple[str, str, str]:
    """Scheme, host and path; an empty scheme where `sources` would not open it by its scheme."""
    if uri.startswith("/"):
        return "file", "", uri
    if "://" not in uri:
        return "", "", uri
    if uri.startswith("file://"):
        # As `sources` reads it: what follows is the path, letter by letter.
        host, slash, path = uri.removeprefix("file://").partition("/")
        return "file", host, slash + path
    try:
        parts = urlsplit(uri)
    except ValueError:
        return "", "", uri
    return parts.scheme, parts.netloc.lower(), parts.path


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")
