"""Weights that workers may be told to use: content-addressed files in a folder, or behind any URI that fsspec knows.

    weights/<sha256>.safetensors          a checkpoint
    weights/<sha256>.evaluation.json      what `unmask evaluate --json` wrote of it

A file is there whole or not at all. Whoever fetches weights checks their sha256: what a registry holds under a name it
does not deserve is never used.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from models.atomic import atomic_write
from models.errors import UnmaskError

_FOLDER: Final = "weights"
_CHUNK_BYTES: Final = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RegistryError(UnmaskError):
    """Something cannot be put into a registry or had from it; the message says why."""

    exit_code = 1


class NotInRegistryError(RegistryError):
    """The registry answers, and has no such file."""


class DamagedError(RegistryError):
    """The bytes are not those that the sha256 names."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached, read or written at the moment."""


class Registry:
    """A registry, and the folder of this machine in which fetched weights are kept."""

    def __init__(self, uri: str, cache: Path) -> None:
        """Does not look at it yet.

        Args:
            uri: a folder's path, or a URI such as s3://bucket/models.
            cache: folder for fetched weights.

        Raises:
            ValueError: no URI of a file system that is known here.
        """
        import fsspec

        # Others, with other working folders, read where it is.
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().absolute())
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise ValueError(f"registry {uri}: {error}") from error
        self._cache = cache

    @classmethod
    def holding(cls, weights_uri: str, cache: Path) -> Registry:
        """The registry that has given weights this URI.

        Raises:
            ValueError: it is not a URI that `uri_of` gives.
        """
        root, middle, name = weights_uri.rpartition(f"/{_FOLDER}/")
        if not middle or "/" in name or not name.endswith(".safetensors"):
            raise ValueError(f"{weights_uri}: expected .../{_FOLDER}/<sha256>.safetensors")
        return cls(root, cache)

    def uri_of(self, sha256: str) -> str:
        """Where weights lie in it."""
        return f"{self.uri}/{_FOLDER}/{_checked(sha256)}.safetensors"

    def put(self, weights: Path, sha256: str, evaluation: bytes | None) -> str:
        """Put a checkpoint in, and its evaluation where there is one. What was there under these names is replaced.

        Args:
            weights: the file.
            sha256: of its bytes.
            evaluation: JSON of `unmask evaluate`.

        Returns:
            The URI of the weights.

        Raises:
            DamagedError: the file has another sha256; nothing was put.
            RegistryUnavailableError: it cannot be written.
        """
        with _unavailable(f"{weights} cannot be put into {self.uri}"):
            # The evaluation first: weights that can be fetched have theirs beside them.
            if evaluation is not None:
                self._put_evaluation(sha256, evaluation)
            with weights.open("rb") as source, self._writing(f"{_checked(sha256)}.safetensors") as target:
                if (found := _copy(source, target)) != sha256:
                    raise DamagedError(f"{weights}: has sha256 {found}, not {sha256}; nothing was put")
        return self.uri_of(sha256)

    def put_evaluation(self, sha256: str, evaluation: bytes) -> None:
        """Replace the evaluation of weights.

        Raises:
            RegistryUnavailableError: it cannot be written.
        """
        with _unavailable(f"an evaluation cannot be put into {self.uri}"):
            self._put_evaluation(sha256, evaluation)

    def evaluation(self, sha256: str) -> bytes:
        """The evaluation of weights.

        Raises:
            NotInRegistryError: there is none.
            RegistryUnavailableError: it cannot be read.
        """
        name = f"{_checked(sha256)}.evaluation.json"
        with _unavailable(f"{name} cannot be had from {self.uri}"), self._files.open(self._path(name), "rb") as file:
            return bytes(file.read())

    def get(self, sha256: str) -> Path:
        """The weights as a file of this machine, with this sha256: from the cache, else fetched into it.

        Raises:
            NotInRegistryError: the registry has none of this sha256.
            DamagedError: what it has is something else; nothing was kept.
            RegistryUnavailableError: it cannot be reached, or the cache cannot be written.
        """
        name = f"{_checked(sha256)}.safetensors"
        kept = self._cache / name
        with _unavailable(f"{name} cannot be had from {self.uri}"):
            if kept.is_file():
                with kept.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                        return kept
            with self._files.open(self._path(name), "rb") as source, atomic_write(kept) as target:
                if (found := _copy(source, target)) != sha256:
                    raise DamagedError(f"{self.uri_of(sha256)}: has sha256 {found}; nothing was kept")
        return kept

    def _put_evaluation(self, sha256: str, evaluation: bytes) -> None:
        with self._writing(f"{_checked(sha256)}.evaluation.json") as target:
            target.write(evaluation)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{_FOLDER}/{name}"

    @contextmanager
    def _writing(self, name: str) -> Iterator[IO[bytes]]:
        """A file that takes its name when the block ends without an error, else vanishes."""
        from fsspec.implementations.local import LocalFileSystem

        path = self._path(name)
        if isinstance(self._files, LocalFileSystem):
            with atomic_write(Path(path)) as file:
                yield file
            return
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._files.transaction, self._files.open(path, "wb") as file:
            yield file


def _checked(sha256: str) -> str:
    """It becomes part of a path."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"expected the 64 hex digits of a sha256, got {sha256!r}")
    return sha256


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy to the end; returns the sha256 of what was copied."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


@contextmanager
def _unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except (RegistryError, ValueError):
        raise
    except FileNotFoundError as error:
        raise NotInRegistryError(f"{what}: there is none") from error
    except Exception as error:  # plug-in file systems raise what they like
        raise RegistryUnavailableError(f"{what}: {type(error).__name__}: {error}") from error
