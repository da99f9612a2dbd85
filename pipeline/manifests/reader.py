"""Reads the Content Credentials of files, each in a process of its own that a hostile file cannot leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from models.errors import UnmaskError
from pipeline.credentials import MAX_RECORD_BYTES, Credentials, CredentialState
from pipeline.video.sandbox import cage_required

log = structlog.get_logger(__name__)

# Of a file that is hashed, per second of computing: a third of what was measured.
_BYTES_PER_S: Final = 50_000_000
# How often a waiting thread looks whether it should stop, in seconds.
_TURN_S: Final = 0.1
# What the interpreter needs to start: a process that parses hostile files must not see this one's secrets.
_ENVIRONMENT: Final = ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_ROOT: Final = Path(__file__).resolve().parents[2]


class TrustListError(UnmaskError):
    """The list of authorities cannot be read."""


@dataclass(frozen=True, slots=True)
class ManifestLimits:
    """What reading one file's manifest may take; more is `unreadable`.

    Attributes:
        cpu_s: of computing, and one more second for each 50 MB: the whole file is hashed, at 150 MB a second and more.
        wall_s: in all, with waiting for the disk.
        data_bytes: of memory.
    """

    cpu_s: int = 5
    wall_s: float = 300.0
    data_bytes: int = 1 << 30


def is_installed() -> bool:
    """Whether the extra `c2pa` is."""
    return find_spec("c2pa") is not None


class CredentialsReader:
    """Reads manifests of files. Safe to share between threads.

    Args:
        trust: a PEM file of the authorities whose signers are trusted; None: no signer is verified.
        limits: see `ManifestLimits`.

    Raises:
        TrustListError: the file cannot be read, or has no certificate.
    """

    def __init__(self, trust: Path | None = None, limits: ManifestLimits | None = None) -> None:
        self._trust = None if trust is None else str(trust.expanduser().resolve())
        self._limits = limits or ManifestLimits()
        if self._trust is not None:
            _check_trust_list(self._trust)

    def begin(self, fd: int) -> Reading:
        """Begin to read the manifest of a file.

        Args:
            fd: its descriptor; its position is neither used nor moved. It may be closed after this.
        """
        if not is_installed():
            return Reading(None, self._limits)
        options = {
            "trust": self._trust,
            "cpu_s": self._limits.cpu_s + os.fstat(fd).st_size // _BYTES_PER_S,
            "data_bytes": self._limits.data_bytes,
            "cage_required": cage_required(),
        }
        command = [sys.executable, "-P", "-m", "pipeline.manifests.child", json.dumps(options)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            child = subprocess.Popen(
                command,
                stdin=fd,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**environment, "PYTHONPATH": os.pathsep.join(path)},
                # Ctrl-C in the terminal is for this process, which ends its readers itself.
                start_new_session=True,
            )
        except OSError as error:
            return Reading(None, self._limits, f"their reader could not be started: {error}")
        return Reading(child, self._limits)

    def read(self, fd: int, stop: Callable[[], bool] = lambda: False) -> Credentials:
        """The credentials of a file.

        Args:
            fd: its descriptor.
            stop: asked now and then, whether to give up.
        """
        return self.begin(fd).end(stop)


class Reading:
    """A manifest that is being read; call `end` in any case.

    Args:
        child: the process; None: there is no reader, or `error` says why it could not be started.
        limits: of time.
        error: see above.
    """

    def __init__(self, child: subprocess.Popen[bytes] | None, limits: ManifestLimits, error: str | None = None) -> None:
        self._child = child
        self._limits = limits
        self._error = error
        self._until_s = time.monotonic() + limits.wall_s

    def end(self, stop: Callable[[], bool] = lambda: False) -> Credentials:
        """Wait for the result; whatever happens to its reader is in it.

        Args:
            stop: asked now and then, whether to give up.
        """
        child = self._child
        if child is None:
            if self._error is not None:
                return _unreadable(self._error)
            return Credentials(state=CredentialState.NOT_INSTALLED)
        assert child.stdout is not None
        with child.stdout as output:
            status = self._wait(child, stop)
            # It has ended, and all that it wrote is in the pipe. It may have been taken over: no more is read.
            text = output.read(MAX_RECORD_BYTES + 1) if status == 0 else b""
        if status is None:
            return _unreadable(f"reading them took over {self._limits.wall_s:g} s")
        if status != 0:
            log.warning("the reader of Content Credentials died", status=status)
            return _unreadable(f"their reader died (status {status}), by a fault or at its limit of time or memory")
        try:
            return Credentials.model_validate_json(text)
        except ValidationError:
            return _unreadable("their reader gave no valid result")

    def _wait(self, child: subprocess.Popen[bytes], stop: Callable[[], bool]) -> int | None:
        """Its exit status; None if it was killed for its time, or since nobody waits for it any more."""
        status = child.poll()
        while status is None and time.monotonic() < self._until_s and not stop():
            try:
                status = child.wait(_TURN_S)
            except subprocess.TimeoutExpired:
                continue
        if status is not None:
            return status
        child.kill()
        child.wait()
        return None


def _unreadable(detail: str) -> Credentials:
    return Credentials(state=CredentialState.UNREADABLE, detail=detail)


def _check_trust_list(path: str) -> None:
    import ssl  # takes a while, and most callers have no list

    try:
        text = Path(path).read_text("utf-8")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TrustListError(
            f"UNMASK_C2PA_TRUST: {path}: {error}: expected a PEM file with the certificates of authorities"
        ) from error
