"""The process that reads one file's manifest: `python -m pipeline.manifests.child`, with the file as standard input.

It locks itself in as a decode child does (`pipeline.video.cage`): it opens no file and no connection after that. Only
`CredentialsReader` starts it, with its options as one JSON argument. It writes `Credentials` to standard output.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import c2pa

from pipeline.credentials import MAX_RECORD_BYTES, MAX_TEXT, Credentials, CredentialState
from pipeline.manifests.summary import summary_of
from pipeline.video import cage

_OPEN_FILES: Final = 32
_READ_BYTES: Final = 1 << 18
# No network, whatever a manifest names; the cage has no sockets either.
_OFFLINE: Final[dict[str, dict[str, Any]]] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
    "core": {"allowed_network_hosts": [], "decode_identity_assertions": False},
}


class _File(io.RawIOBase):
    """A file by its descriptor, with a position of its own: others read it through the same descriptor.

    Attributes:
        error: of a read; the library takes a file that it cannot read for one of an unknown kind.
    """

    def __init__(self, fd: int) -> None:
        self.error: str | None = None
        self._fd = fd
        self._at = 0
        self._size_bytes = os.fstat(fd).st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        try:
            read = os.pread(self._fd, min(len(buffer), _READ_BYTES), self._at)
            buffer[: len(read)] = read
        except (OSError, MemoryError) as error:
            self.error = str(error) or "no memory"
            raise
        self._at += len(read)
        return len(read)


def main(options: str) -> None:
    """Read the manifest of standard input.

    Args:
        options: JSON with `trust` (path or null), `cpu_s`, `data_bytes` and `cage_required`.
    """
    wanted = json.loads(options)
    trust = None if wanted["trust"] is None else Path(wanted["trust"]).read_text("utf-8")
    context = c2pa.Context.from_dict(_OFFLINE | ({} if trust is None else {"trust": {"user_anchors": trust}}))
    file = _File(0)
    # libffi makes the code of all callbacks with the first one; none can be made in the cage.
    with c2pa.Stream(io.BytesIO()):
        _restrict(wanted["cpu_s"], wanted["data_bytes"])
        missing = cage.lock().missing
        if missing and wanted["cage_required"]:
            found = _unreadable(f"this system lacks {', '.join(missing)} for the cage of their reader")
        else:
            found = _read(file, context, has_trust_list=trust is not None)
            if file.error is not None:
                found = _unreadable(f"The file could not be read: {file.error}.")
        while len(text := found.model_dump_json().encode()) > MAX_RECORD_BYTES:
            found = found.model_copy(update={"actions": found.actions[:-1]})
        os.write(1, text)
    # Without the library's clean-up, which may fail in the cage.
    os._exit(0)


def _read(file: _File, context: c2pa.Context, *, has_trust_list: bool) -> Credentials:
    try:
        reader = c2pa.Reader.try_create(file, context=context)
        if reader is None:
            return Credentials(state=CredentialState.ABSENT)
        return summary_of(json.loads(reader.json()), has_trust_list=has_trust_list)
    except c2pa.C2paError.NotSupported:
        return Credentials(
            state=CredentialState.ABSENT, detail="Content Credentials are not read from files of this kind."
        )
    except c2pa.C2paError.RemoteManifest as error:
        return _unreadable(f"They are not in the file but at an address, which is not fetched: {error}")
    except MemoryError:
        return _unreadable("Reading them takes more memory than it may.")
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        return _unreadable(f"{error}")


def _unreadable(detail: str) -> Credentials:
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in detail)
    return Credentials(state=CredentialState.UNREADABLE, detail=shown[: 3 * MAX_TEXT])


def _restrict(cpu_s: int, data_bytes: int) -> None:
    if sys.platform == "linux":
        # If the machine runs out of memory, the kernel kills this process first.
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
    for what, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_DATA, data_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(what, (value, value))


if __name__ == "__main__":
    main(sys.argv[1])
