"""Paths and parsing of the files for images and Compose."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILES = [DOCKER / "Dockerfile.cpu", DOCKER / "Dockerfile.cuda"]


@dataclass(frozen=True)
class Stage:
    """FROM `base` AS `name`, and the steps up to the next FROM."""

    base: str
    name: str | None
    steps: tuple[tuple[str, str], ...]

    def all(self, instruction: str) -> list[str]:
        return [rest for name, rest in self.steps if name == instruction]


def stages(path: Path) -> list[Stage]:
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)
    found: list[tuple[str, str | None, list[tuple[str, str]]]] = []
    defaults: dict[str, str] = {}
    for line in filter(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines()):
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda variable: defaults[variable[1]], base)
            found.append((base, name or None, []))
        elif not found:
            assert instruction == "ARG", "only an ARG may be before the first FROM"
            variable, _, default = rest.partition("=")
            defaults[variable] = default
        else:
            found[-1][2].append((instruction, rest))
    return [Stage(base, name, tuple(steps)) for base, name, steps in found]


def copied(rest: str) -> list[str]:
    """The sources of a COPY."""
    return [argument for argument in rest.split() if not argument.startswith("--")][:-1]


def absent(tool: str, installer: str = "make setup") -> NoReturn:
    """Skip a test whose tool is not installed; fail in CI."""
    message = f"no {tool}: `{installer}` installs it"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
