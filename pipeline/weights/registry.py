"""The registry of weights for workers: content-addressed files in a folder, or behind any URI that fsspec supports.

    weights/<sha256>.safetensors          a checkpoint
    weights/<sha256>.evaluation.json      output of `unmask evaluate --json`
    graphs/<sha256>.graph                 the graph of a checkpoint, by its own sha256

Files are written atomically. Fetched weights are checked against their sha256: a file that does not match its name is
never used.
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
from pipeline.graphs.format import SUFFIX

_FOLDER: Final = "weights"
_GRAPHS: Final = "graphs"
_CHUNK_BYTES: Final = 1 << 20
# Where an announcement has no size: the largest architecture has half a gigabyte.
MAX_WEIGHTS_BYTES: Final = 8 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RegistryError(UnmaskError):
    """A file cannot be written to a registry or read from it; the message says why."""

    exit_code = 1


class NotInRegistryError(RegistryError):
    """The registry has no such file."""


class DamagedError(RegistryError):
    """The bytes do not match the sha256."""


class RegistryUnavailableError(RegistryError):
    """The registry cannot be reached, read or written at the moment."""


class Registry:
    """A registry, and the local folder in which fetched weights are cached."""

    def __init__(self, uri: str, cache: Path) -> None:
        """Does not access it yet.

        Args:
            uri: a folder's path, or a URI such as s3://bucket/models.
            cache: folder for fetched weights.

        Raises:
            ValueError: no file system is known for this URI.
        """
        import fsspec

        # Processes with other working folders read this address.
        self.uri = uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().absolute())
        try:
            self._files, self._root = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as error:
            raise ValueError(f"registry {uri}: {error}") from error
        self._cache = cache

    def uri_of(self, sha256: str) -> str:
        """The URI of weights in it."""
        return f"{self.uri}/{_FOLDER}/{_checked(sha256)}.safetensors"

    def put(self, weights: Path, sha256: str, evaluation: bytes | None) -> str:
        """Store a checkpoint, and its evaluation if given. Existing files of these names are replaced.

        Args:
            weights: the file.
            sha256: of its bytes.
            evaluation: JSON of `unmask evaluate`.

        Returns:
            The URI of the weights.

        Raises:
            DamagedError: the file has another sha256; nothing was stored.
            RegistryUnavailableError: the registry cannot be written.
        """
        with _unavailable(f"{weights} cannot be written to {self.uri}"):
            # The evaluation first: weights that can be fetched already have it.
            if evaluation is not None:
                self._put_evaluation(sha256, evaluation)
            with weights.open("rb") as source, self._writing(f"{_checked(sha256)}.safetensors") as target:
                if (found := _copy(source, target)) != sha256:
                    raise DamagedError(f"{weights}: has sha256 {found}, not {sha256}; nothing was stored")
        return self.uri_of(sha256)

    def put_evaluation(self, sha256: str, evaluation: bytes) -> None:
        """Replace the evaluation of weights.

        Raises:
            RegistryUnavailableError: the registry cannot be written.
        """
        with _unavailable(f"an evaluation cannot be written to {self.uri}"):
            self._put_evaluation(sha256, evaluation)

    def evaluation(self, sha256: str) -> bytes:
        """The evaluation of weights.

        Raises:
            NotInRegistryError: it does not exist.
            RegistryUnavailableError: the registry cannot be read.
        """
        name = f"{_checked(sha256)}.evaluation.json"
        with _unavailable(f"{name} cannot be read from {self.uri}"), self._files.open(self._path(name), "rb") as file:
            return bytes(file.read())

    def has(self, sha256: str) -> bool:
        """Whether it has weights of this sha256.

        Raises:
            RegistryUnavailableError: the registry cannot be reached.
        """
        path = self._path(f"{_checked(sha256)}.safetensors")
        with _unavailable(f"{path} cannot be looked for in {self.uri}"):
            return bool(self._files.exists(path))

    def get(self, sha256: str, max_bytes: int = MAX_WEIGHTS_BYTES) -> Path:
        """The weights with this sha256 as a local file: from the cache, else fetched into it.

        Args:
            sha256: of the file.
            max_bytes: no more is fetched.

        Raises:
            NotInRegistryError: the registry has no weights of this sha256.
            DamagedError: its file has another sha256, or more bytes; nothing was kept.
            RegistryUnavailableError: the registry cannot be reached, or the cache cannot be written.
        """
        name = f"{_checked(sha256)}.safetensors"
        return self._fetched(self._path(name), self._cache / name, sha256, max_bytes)

    def put_graph(self, graph: bytes) -> str:
        """Store the graph of weights; returns its sha256.

        Raises:
            RegistryUnavailableError: the registry cannot be written.
        """
        sha256 = hashlib.sha256(graph).hexdigest()
        with (
            _unavailable(f"a graph cannot be written to {self.uri}"),
            self._writing(f"{sha256}{SUFFIX}", _GRAPHS) as target,
        ):
            target.write(graph)
        return sha256

    def get_graph(self, sha256: str, max_bytes: int, *, weights_sha256: str) -> Path:
        """The graph with this sha256 as a local file next to the weights that it belongs to; cached as they are.

        Args:
            sha256: of the graph's file.
            max_bytes: no more is fetched.
            weights_sha256: of the weights that `get` fetched.

        Raises:
            NotInRegistryError: as `get`.
            DamagedError: as `get`.
            RegistryUnavailableError: as `get`.
        """
        kept = self._cache / f"{_checked(weights_sha256)}{SUFFIX}"
        return self._fetched(self._path(f"{_checked(sha256)}{SUFFIX}", _GRAPHS), kept, sha256, max_bytes)

    def _fetched(self, path: str, kept: Path, sha256: str, max_bytes: int) -> Path:
        """The file `kept`, fetched if it does not have this sha256."""
        name = path.rpartition("/")[2]
        with _unavailable(f"{name} cannot be read from {self.uri}"):
            if kept.is_file():
                with kept.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                        return kept
            with self._files.open(path, "rb") as source, atomic_write(kept) as target:
                if (found := _copy(source, target, max_bytes)) != sha256:
                    raise DamagedError(f"{path}: has sha256 {found}; nothing was kept")
        return kept

    def _put_evaluation(self, sha256: str, evaluation: bytes) -> None:
        with self._writing(f"{_checked(sha256)}.evaluation.json") as target:
            target.write(evaluation)

    def _path(self, name: str, folder: str = _FOLDER) -> str:
        return f"{self._root.rstrip('/')}/{folder}/{name}"

    @contextmanager
    def _writing(self, name: str, folder: str = _FOLDER) -> Iterator[IO[bytes]]:
        """A file that appears under its name only if the block succeeds."""
        from fsspec.implementations.local import LocalFileSystem

        path = self._path(name, folder)
        if isinstance(self._files, LocalFileSystem):
            with atomic_write(Path(path)) as file:
                yield file
            return
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with self._files.transaction, self._files.open(path, "wb") as file:
            yield file


def _checked(sha256: str) -> str:
    """Validate a sha256, which becomes part of a path."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"expected the 64 hex digits of a sha256, got {sha256!r}")
    return sha256


def _copy(source: IO[bytes], target: IO[bytes], max_bytes: int = MAX_WEIGHTS_BYTES) -> str:
    """Copy to the end; returns the sha256 of the copied bytes."""
    digest = hashlib.sha256()
    copied = 0
    while chunk := source.read(_CHUNK_BYTES):
        copied += len(chunk)
        if copied > max_bytes:
            raise DamagedError(f"the file holds more than the {max_bytes} bytes that were announced")
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
        raise NotInRegistryError(f"{what}: it does not exist") from error
    except Exception as error:  # plug-in file systems raise anything
        raise RegistryUnavailableError(f"{what}: {type(error).__name__}: {error}") from error
