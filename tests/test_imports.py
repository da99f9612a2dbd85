"""Who may import whom, and what must stay out of whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNMASK = Path(sys.executable).with_name("unmask")
# Each may import itself and those before it.
ORDER = ("models", "pipeline", "trainers", "tests")
HEAVY = ("torch", "torchvision", "timm", "cv2", "av", "openvino", "facenet_pytorch", "numpy")
SERVING_ONLY = ("pydantic", "pydantic_settings", "structlog", "typer", "fsspec", "openvino", "av", "jinja2")


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def wrong_way(package: str, source: str) -> list[tuple[int, str]]:
    """The imports of a package that comes later in the order."""
    later = ORDER[ORDER.index(package) + 1 :]
    return [(line, name) for line, name in imported(source) if name in later]


@pytest.mark.parametrize("package", ORDER[:-1])
def test_imports_run_one_way(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {
        f"{path.relative_to(ROOT)}:{line}": name
        for path in files
        for line, name in wrong_way(package, path.read_text("utf-8"))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("package", "source", "names"),
    [
        ("models", "import pipeline.types", ["pipeline"]),
        ("models", "def f():\n    from trainers.loop import run", ["trainers"]),
        ("pipeline", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trainers", ["trainers"]),
        ("pipeline", "import models\nfrom pipeline import types", []),
        ("trainers", "import models, pipeline, torch", []),
        ("trainers", "import tests.media", ["tests"]),
    ],
)
def test_an_arrow_that_runs_back_is_found(package: str, source: str, names: list[str]) -> None:
    assert [name for _, name in wrong_way(package, source)] == names


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that are there after a statement."""
    return set(python("-c", f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')").stdout.split("\n"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *(
            [command, "--help"]
            for command in ("scan", "models", "doctor", "bench", "train", "evaluate", "data", "promote", "rollback")
        ),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    done = python("-X", "importtime", str(UNMASK), *arguments)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in names
    assert names.isdisjoint(HEAVY)
    assert done.stdout


def test_the_decode_child_holds_the_decoders_and_little_else() -> None:
    loaded = loaded_by("import pipeline.video.forkserver")
    assert loaded >= {"av", "cv2", "numpy"}
    assert loaded.isdisjoint({"torch", "pydantic", "openvino", "timm", "rich", "structlog", "fsspec"})


def test_what_trains_needs_nothing_that_only_serving_has() -> None:
    python(
        "-c",
        f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({SERVING_ONLY!r}))
import models, trainers
for package in (models, trainers):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        # The sub-commands of `unmask` are typer's; `python -m trainers` does without them.
        if not module.name.startswith(("trainers.commands", "trainers.__main__")):
            importlib.import_module(module.name)
""",
    )
