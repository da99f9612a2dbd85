"""An earlier version of Unmask as its own wheel, built from the history of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
# The last commit before canaries, rescored verdicts and traces; records, parts and streams have the schemas of today.
EARLIER: Final = "c25a0118a269fda319ea03da4d64edc711a8b0dd"


class NoHistoryError(Exception):
    """The checkout does not have the commit."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The unpacked wheel.

    Attributes:
        packages: folder to import from; the other packages are those of this environment.
        unmask: the command.
    """

    packages: Path
    unmask: Path

    def python(self, code: str, stdin: str = "") -> str:
        """What a program prints that imports this version.

        Raises:
            RuntimeError: it failed; with its standard error.
        """
        done = subprocess.run(
            # Without the working folder, which has this version.
            [sys.executable, "-P", "-c", code],
            env={**os.environ, "PYTHONPATH": str(self.packages)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout


def has_history() -> bool:
    """Whether this is a git checkout with all of its history."""
    if not (ROOT / ".git").exists():
        return False
    return _git("rev-parse", "--is-shallow-repository").stdout.strip() == b"false"


def build(commit: str, folder: Path) -> Earlier:
    """Build the wheel of a commit and unpack it.

    Raises:
        NoHistoryError: the commit is not here: a shallow clone, or no checkout.
        RuntimeError: the wheel cannot be built.
    """
    if not (ROOT / ".git").exists() or _git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise NoHistoryError(f"commit {commit} is not in this checkout: git fetch --unshallow")
    source, wheels, packages = folder / "source", folder / "wheels", folder / "packages"
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    steps = (
        ["git", "-C", str(ROOT), "archive", "--output", str(archive), commit],
        ["tar", "-xf", str(archive), "-C", str(source)],
        # Nothing is fetched: the build back end is in this environment.
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)],
    )
    for step in steps:
        done = subprocess.run(step, cwd=source, capture_output=True, text=True, timeout=200, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{step[0]}: {done.stderr}")
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(packages)
    main = folder / "main.py"
    main.write_text("from pipeline.cli import main\n\nif __name__ == '__main__':\n    main()\n")
    command = folder / "unmask"
    command.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "{main}" "$@"\n')
    command.chmod(0o755)
    return Earlier(packages, command)


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=60, check=False)
