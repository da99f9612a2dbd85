"""The URI of a store of uploaded files: which are accepted, whose it is, and how it is shown."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from models.atomic import atomic_write
from models.errors import UnmaskError
from pipeline.visible import masked

# Below the prefix; it names the service that writes there.
MARKER: Final = "unmask-service"
# They forget, or cannot be written to.
_NOT_KEPT: Final = frozenset({"memory", "http", "https", "data"})
# s3fs tries five times, and botocore five times for each of these by default: an upload would wait for minutes.
_S3: Final = frozenset({"s3", "s3a"})
_S3_CONFIG: Final = {"retries": {"max_attempts": 1}}
# They name files of this machine.
_PATHS: Final = frozenset({"file", "local"})


class StoreError(UnmaskError):
    """The URI of a store is invalid, or the store is another service's."""


class StoreUnreachableError(StoreError):
    """The store cannot be reached, read or written."""

    exit_code = 1


class StoreUri:
    """The URI of a store.

    Args:
        text: such as s3://bucket/prefix, or a path of this machine.

    Attributes:
        text: without a slash at its end.
        shown: for people, without name and password.

    Raises:
        StoreError: no store can be there.
    """

    def __init__(self, text: str) -> None:
        scheme, has_scheme, rest = text.partition("://")
        self.text = f"{scheme}://{rest.rstrip('/')}" if has_scheme else text.rstrip("/")
        try:
            parts = urlsplit(text)
        except ValueError:
            raise StoreError("the URI of the store is malformed") from None
        password = parts.password or ""
        self._secrets = sorted({password, unquote(password)} - {""}, key=len, reverse=True)
        self.shown = self.plain(self.text)
        if "::" in text or parts.query or parts.fragment:
            raise StoreError(f"{self.shown.partition('?')[0]}: a store is a plain URI: no chain (::), ? or #")
        if parts.scheme in _NOT_KEPT:
            raise StoreError(f"{self.shown}: {parts.scheme} keeps no uploads; name a store such as s3://bucket/prefix")
        if parts.scheme in _PATHS and not rest.startswith("/"):
            raise StoreError(f"{self.shown}: expected an absolute path, such as {parts.scheme}:///srv/uploads")

    @property
    def has_secret(self) -> bool:
        """Whether it has a password."""
        return bool(self._secrets)

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that it names; None: it does not name one."""
        if "://" not in self.text:
            return Path(self.text or "/").expanduser().absolute()
        scheme, _, path = self.text.partition("://")
        return Path(path or "/") if scheme in _PATHS else None

    def plain(self, what: object) -> str:
        """A text, or an error with its type, without the URI's password, wherever it is."""
        text = f"{type(what).__name__}: {what}" if isinstance(what, BaseException) else str(what)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return masked(text)

    def opened(self) -> tuple[Any, str]:
        """The file system of fsspec, and the path of the prefix in it.

        Raises:
            StoreError: the URI is of an unknown kind, or a package is missing.
            StoreUnreachableError: it cannot be reached.
        """
        import fsspec

        options: dict[str, Any] = {}
        scheme = self.text.partition("://")[0]
        if scheme in _S3 and "config_kwargs" not in fsspec.config.conf.get(scheme, {}):
            options["config_kwargs"] = _S3_CONFIG
        with self._at_start(unknown=(ValueError, ImportError)):
            files, root = fsspec.core.url_to_fs(self.text, **options)
        if not root.strip("/"):
            raise StoreError(f"{self.shown}: expected a bucket or folder, such as s3://bucket/prefix")
        return files, root.rstrip("/")

    def claim(self, owner: str) -> None:
        """Make the prefix this service's: another one would delete its files as unknown. It is tried on the way, too.

        Args:
            owner: see `owner_of`.

        Raises:
            StoreError: it is another service's.
            StoreUnreachableError: it cannot be reached, read or written.
        """
        files, root = self.opened()
        marker = f"{root}/{MARKER}"
        with self._at_start():
            found = None
            with suppress(FileNotFoundError):
                found = bytes(files.cat_file(marker)).decode("utf-8", "replace")
            # Otherwise `makedirs` could make a bucket, of a name with a typo.
            if found is None and not files.exists(top := root.partition("/")[0] or "/"):
                raise FileNotFoundError(f"{top} does not exist")
            if found in (None, "", owner):
                files.makedirs(root, exist_ok=True)
                files.pipe_file(marker, owner.encode())
                files.invalidate_cache()
                found = bytes(files.cat_file(marker)).decode("utf-8", "replace")
        if found != owner:
            raise StoreError(
                f"{self.shown}: another service keeps its uploads there; take another prefix. If this one replaces it "
                f"with all its data, delete {MARKER} there"
            )

    @contextmanager
    def _at_start(self, unknown: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - plug-in file systems raise anything
            if isinstance(error, unknown):
                more = "; pip install 'unmask[remote]' has s3://" if isinstance(error, ImportError) else ""
                raise StoreError(f"{self.shown}: {self.plain(str(error))}{more}") from None
            raise StoreUnreachableError(
                f"{self.shown}: the store cannot be reached, read or written: {self.plain(error)}"
            ) from None


def owner_of(folder: Path) -> str:
    """The id by which a store knows the service of a folder; it is made if it does not exist.

    Raises:
        OSError: it cannot be read or made.
    """
    file = folder / "service.id"
    if not file.exists():
        with atomic_write(file) as opened:
            os.fchmod(opened.fileno(), 0o600)
            opened.write(secrets.token_hex(16).encode())
    return file.read_text().strip()
