"""Which URIs a worker may read: a task must not give access to the worker's own files or network."""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from pipeline.contracts import Outcome
from pipeline.http_fetch import IpAddress, is_public
from pipeline.sources import HTTP, OPEN_FLAGS, SCHEMES, SourceError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
# openat2(2), Linux 5.6; the number is the same on all architectures.
_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08


@dataclass(frozen=True, slots=True)
class UriAllow:
    """The schemes and roots of `UNMASK_URI_ALLOW`.

    Attributes:
        schemes: of which every URI may be read, if its host has a public address.
        roots: (scheme, host or bucket, path) below which URIs may be read; of files the path is resolved.
    """

    schemes: frozenset[str]
    roots: tuple[tuple[str, str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a list with commas: `/srv/videos`, `s3://bucket/inbox`, `https://media.example.org`, `https`.

        Raises:
            ValueError: an entry is neither a scheme nor a URI with a host or an absolute path, or is `file` alone.
        """
        schemes: set[str] = set()
        roots = []
        for entry in filter(None, map(str.strip, text.split(","))):
            if _SCHEME.fullmatch(entry):
                if entry == "file":
                    raise ValueError(
                        "'file' alone would open every file to everyone who sends tasks: expected a folder, such as "
                        "/srv/videos (/ allows all)"
                    )
                _check_scheme(entry)
                schemes.add(entry)
                continue
            scheme, host, path = _split(entry)
            known = bool(host) or (path.startswith("/") and f"{scheme}://" not in HTTP)
            if not scheme or not known or (scheme == "file" and host):
                raise ValueError(f"{entry!r}: expected a scheme (https), or a URI that begins like file:///srv/videos")
            roots.append((scheme, host, os.path.realpath(path) if scheme == "file" else path.rstrip("/")))
        return cls(frozenset(schemes), tuple(roots))

    @property
    def is_empty(self) -> bool:
        """Whether nothing may be read."""
        return not self.schemes and not self.roots

    def check(self, uri: str) -> None:
        """Return if the URI may be read. Links are resolved first: those that lead out of a root are refused.

        Args:
            uri: a URI, a chain of them (`zip://a.mp4::file:///srv/a.zip`), or an absolute path.

        Raises:
            SourceError: it may not be read ("unavailable").
        """
        for link in [uri] if uri.startswith(("/", *HTTP)) else uri.split("::"):
            if not self._allows(link):
                raise _refused()

    def open_file(self, path: str) -> int:
        """Open a file below one of the roots, and return its descriptor.

        Its links are resolved once; then it is opened without following any, so a link that changes in between leads
        nowhere.

        Raises:
            SourceError: it is outside of the roots ("unavailable").
            OSError: it cannot be opened.
        """
        real = os.path.realpath(path)
        for scheme, _, root in self.roots:
            if scheme == "file" and real == root:  # the root is this file
                return _open_beneath(os.path.dirname(root), os.path.basename(root))  # noqa: PTH119, PTH120
            if scheme == "file" and _below(real, root):
                return _open_beneath(root, os.path.relpath(real, root))
        raise _refused()

    def allows_address(self, uri: str, address: IpAddress) -> bool:
        """Whether the host of an allowed URI may be reached at this address.

        A public one: always. Another one: if the URI is below a root that names the host; a link-local one (where
        clouds keep their credentials): if this root names this very address.
        """
        if is_public(address):
            return True
        if not self._below_a_root(uri):
            return False
        if not address.is_link_local:
            return True
        try:
            return ipaddress.ip_address(urlsplit(uri).hostname or "") == address
        except ValueError:
            return False

    def _allows(self, uri: str) -> bool:
        scheme, host, path = _split(uri)
        if not scheme or (scheme == "file" and (host or not path.startswith("/"))):
            return False
        return scheme in self.schemes or self._below_a_root(uri)

    def _below_a_root(self, uri: str) -> bool:
        scheme, host, path = _split(uri)
        if scheme == "file":
            path = os.path.realpath(path)
        elif ".." in unquote(path).replace("\\", "/").split("/") or "@" in host:
            return False
        return any(
            (scheme, host) == (root_scheme, root_host) and _below(path, root)
            for root_scheme, root_host, root in self.roots
        )


def _check_scheme(scheme: str) -> None:
    """Refuse a typo; links of chains may have any scheme of fsspec's."""
    import fsspec

    if scheme not in SCHEMES and scheme not in fsspec.available_protocols():
        raise ValueError(f"{scheme!r} is no scheme that is opened; these are: {', '.join(sorted(SCHEMES))}")


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _open_beneath(root: str, relative: str) -> int:
    """Open a file below a folder, both without links; raises OSError if a link is met after all."""
    with _opened_folder(root) as folder:
        if sys.platform == "linux":
            how = _OpenHow(OPEN_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
            libc = ctypes.CDLL(None, use_errno=True)
            fd = libc.syscall(
                ctypes.c_long(_OPENAT2),
                ctypes.c_int(folder),
                ctypes.c_char_p(os.fsencode(relative)),
                ctypes.byref(how),
                ctypes.c_size_t(ctypes.sizeof(how)),
            )
            if fd >= 0:
                return int(fd)
            # ENOSYS: an old kernel; EPERM: a container's filter that does not know the call.
            if (code := ctypes.get_errno()) not in (errno.ENOSYS, errno.EPERM):
                raise OSError(code, os.strerror(code))
        return _open_stepwise(folder, relative)


def _open_stepwise(folder: int, relative: str) -> int:
    """The same without openat2: each folder on the way is opened in turn, and none may be a link."""
    *folders, name = [part for part in relative.split("/") if part != "."] or ["."]
    here = os.dup(folder)
    try:
        for part in folders:
            deeper = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = deeper
        return os.open(name, OPEN_FLAGS | os.O_NOFOLLOW, dir_fd=here)
    finally:
        os.close(here)


@contextmanager
def _opened_folder(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


def _refused() -> SourceError:
    return SourceError(Outcome.UNAVAILABLE, "may not be read: it is outside of what UNMASK_URI_ALLOW lists")


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
