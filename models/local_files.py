"""Where weights are kept on this machine, and whether the network may be used to get them."""

from __future__ import annotations

import os
from pathlib import Path

from models.errors import UnmaskError


class WeightsUnavailableError(UnmaskError, RuntimeError):
    """Pretrained weights are not available; the message names the file to place."""


def cache_dir() -> Path:
    """Folder of everything that can be made or fetched again: `$UNMASK_CACHE`, or `~/.cache/unmask`."""
    return Path(os.environ.get("UNMASK_CACHE") or "~/.cache/unmask").expanduser()


def weights_dir() -> Path:
    """Folder of pulled and built weights: `weights` in `cache_dir`."""
    return cache_dir() / "weights"


def is_offline() -> bool:
    """Whether `UNMASK_OFFLINE` forbids the network."""
    return os.environ.get("UNMASK_OFFLINE", "").strip().lower() in ("1", "true", "t", "yes", "y", "on")
