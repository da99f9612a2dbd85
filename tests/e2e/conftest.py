"""The real command, in processes of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import media

UNMASK = Path(sys.executable).with_name("unmask")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def unmask() -> Command:
    """Run `unmask` with these arguments to its end."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [UNMASK, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three clips of two seconds with one face."""
    folder = tmp_path_factory.mktemp("good")
    paths = [folder / f"good{i}.mp4" for i in range(3)]
    for seed, path in enumerate(paths):
        media.make_clip(path, seconds=2, seed=seed)
    return paths


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSONL file; fails on one that is not whole."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def processes_in(folder: Path) -> list[psutil.Process]:
    """Those that were started in this folder, or by one that was: a scan's own, if it alone runs there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found
