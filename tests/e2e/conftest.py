"""The real command, in its own processes."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.checkpoint import Thresholds
from pipeline.graphs.format import SUFFIX, write_graph
from pipeline.graphs.make import make_graph
from tests import media
from tests.weights import small_model

UNMASK = Path(sys.executable).with_name("unmask")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def unmask() -> Command:
    """Run `unmask` with these arguments until it ends."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(UNMASK), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, cwd=cwd)

    return run


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector with its graph, so that scans need no torch, and thresholds that call every clip fake."""
    model, path = small_model(96), tmp_path_factory.mktemp("weights") / "small.safetensors"
    thresholds = Thresholds(0.05, fake=(0.0,) * 8, real=(0.0,) * 8)
    sha256 = model.save_checkpoint(path, epoch=0, name="small", thresholds=thresholds)
    write_graph(path.with_suffix(SUFFIX), make_graph(model.eval(), sha256))
    return path


@pytest.fixture(scope="session")
def good_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three clips of two seconds with one face: a.mp4, b.mp4 and c.mkv."""
    folder = tmp_path_factory.mktemp("good")
    for seed, name in enumerate(("a.mp4", "b.mp4", "c.mkv")):
        media.make_clip(folder / name, seconds=2, seed=seed)
    return folder


@pytest.fixture(scope="session")
def first_scan(good_clips: Path, weights: Path) -> subprocess.CompletedProcess[str]:
    """The three clips scanned once with --frames 4, standard error a terminal; the records are in their folder."""
    command = [str(UNMASK), "scan", ".", "--weights", str(weights), "--frames", "4", "--jsonl", "out.jsonl"]
    terminal = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=good_clips, stdout=subprocess.PIPE, stderr=theirs, env=terminal) as scan:
        os.close(theirs)
        shown = b""
        # Linux reports the end of a pseudo-terminal as an error.
        with suppress(OSError):
            while block := os.read(ours, 4096):
                shown += block
        said, _ = scan.communicate(timeout=60)
    os.close(ours)
    return subprocess.CompletedProcess(command, scan.returncode, said.decode(), shown.decode())


def records(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a JSONL file by source; fails on an incomplete line and on a clip with two records."""
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    by_source = {line["source"]: line for line in lines}
    assert len(by_source) == len(lines)
    return by_source


def processes_in(folder: Path) -> list[psutil.Process]:
    """Processes with this working folder: a scan that was started there, and all its children."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(folder):
                found.append(process)
    return found
