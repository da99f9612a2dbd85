"""Networks compiled for this machine, kept between processes: reading takes a third of the time of compiling.

The cache is `openvino` in the cache folder. An entry is named by everything that decides what is compiled; it begins
with the sha256 of its name and the rest, so one that is damaged, or has another's name, is compiled again. Entries that
were not used for a month, and the oldest ones beyond 1 GiB, are removed when another one is added.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from models.atomic import atomic_write
from models.devices import cpu_flags, cpu_name
from models.local_files import cache_dir
from pipeline import quiet_openvino
from pipeline.graphs.format import GraphError, Network

_FOLDER: Final = "openvino"
_SUFFIX: Final = ".blob"
_DIGEST_BYTES: Final = 32
_MAX_BYTES: Final = 1 << 30
_MAX_AGE_S: Final = 30 * 86400.0


def compile_network(network: Network, shape: Sequence[int] | None, config: Mapping[str, Any]) -> Any:
    """An `openvino.CompiledModel` for the CPU, from the cache if it was compiled before.

    Args:
        network: to compile.
        shape: of its input; None: as the network has it.
        config: properties of OpenVINO's CPU plugin.

    Raises:
        GraphError: this version of OpenVINO cannot run it.
    """
    path = cache_dir() / _FOLDER / f"{_key(network, shape, config)}{_SUFFIX}"
    core = quiet_openvino.core()
    if (blob := _read(path)) is not None:
        # What OpenVINO cannot import, for whatever reason, is compiled.
        with suppress(RuntimeError):
            return core.import_model(blob, "CPU", dict(config))
    try:
        model = quiet_openvino.read(network.xml, network.weights)
        if shape is not None:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", dict(config))
    except RuntimeError as error:
        raise GraphError(f"OpenVINO cannot run this graph: {error}") from error
    # A cache that cannot be written costs time only.
    with suppress(OSError, RuntimeError):
        _write(path, compiled.export_model().getvalue())
    return compiled


def _key(network: Network, shape: Sequence[int] | None, config: Mapping[str, Any]) -> str:
    decides = {
        "openvino": quiet_openvino.load().__version__,
        "cpu": [cpu_name(), *sorted(cpu_flags())],
        "shape": None if shape is None else list(shape),
        "config": {name: str(value) for name, value in sorted(config.items())},
        "network": [hashlib.sha256(part).hexdigest() for part in (network.xml, network.weights)],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> bytes | None:
    """The entry, if it is whole."""
    try:
        content = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return blob if _digest(path, blob) == digest else None


def _write(path: Path, blob: bytes) -> None:
    with atomic_write(path) as file:
        file.write(_digest(path, blob))
        file.write(blob)
    _prune(path.parent)


def _digest(path: Path, blob: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + blob).digest()


def _prune(folder: Path) -> None:
    """Remove entries that are old, and the oldest ones beyond the limit of size."""
    entries = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process removed it
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    kept_bytes, now_s = 0, time.time()
    for used_s, size_bytes, path in sorted(entries, reverse=True):
        kept_bytes += size_bytes
        if kept_bytes > _MAX_BYTES or now_s - used_s > _MAX_AGE_S:
            with suppress(OSError):
                path.unlink()
