"""Import order of packages and rooms, and what may not be imported where."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Each package may import itself and earlier ones.
ORDER = ("client", "models", "pipeline", "web", "trainers", "tests")
HEAVY = ("torch", "torchvision", "timm", "cv2", "av", "openvino", "facenet_pytorch", "numpy")


# The rooms of each package (its folders and single files); each may import itself and earlier ones.
ROOMS = {
    "client": ("errors", "results", "events", "signatures", "transport", "resumable", "api"),
    "models": (
        "errors",
        "atomic",
        "cores",
        "calibration",
        "error_rates",
        "spec",
        "param_groups",
        "config",
        "devices",
        "precision",
        "device_choice",
        "local_files",
        "checkpoint_info",
        "checkpoint_header",
        "checkpoint",
        "ensemble",
        "pretrained",
        "packages",
        "clip_package",
        "bases",
        "difference",
        "zoo",
        "layers",
        "base",
        "architectures",
        "interop",
    ),
    "pipeline": (
        "types",
        "quiet_openvino",
        "graphs",
        "detectors",
        "otel",
        "tracing",
        "visible",
        "logs",
        "contracts",
        "drift",
        "environment",
        "settings",
        "outputs",
        "http_fetch",
        "sources",
        "finding",
        "portraits",
        "credentials",
        "known",
        "clip_report",
        "video",
        "manifests",
        "faces",
        "verdict",
        "scoring",
        "interop",
        "telemetry",
        "transport",
        "parts",
        "frames_again",
        "portraits_later",
        "stage_times",
        "frame_scorer",
        "early_looks",
        "scanner_options",
        "first_print",
        "several_streams",
        "scan",
        "scan_many",
        "results",
        "assembly",
        "explain",
        "live",
        "weights",
        "worker",
        "dead",
        "submit",
        "purge",
        "doctor",
        "scan_start",
        "scan_run",
        "archive",
        "planning",
        "bench",
        "commands",
        "cli",
    ),
    "web": (
        "problems",
        "headers",
        "traces",
        "head",
        "signing",
        "backup",
        "database",
        "audit",
        "sniffing",
        "hub",
        "keys",
        "accounts",
        "oidc_options",
        "oidc",
        "webhooks",
        "agreement",
        "rounds",
        "videos",
        "listing",
        "appeals",
        "decisions",
        "reviews",
        "views",
        "actions",
        "repeating",
        "auditor",
        "quality",
        "known",
        "labels",
        "rescores",
        "rescore_diff",
        "rescore_keys",
        "rescore_runs",
        "rescore_notices",
        "media",
        "retention",
        "store_uri",
        "media_copies",
        "media_folder",
        "media_store",
        "evidence",
        "uploads",
        "resumable",
        "rates",
        "listening",
        "judges",
        "judging",
        "rescoring",
        "rescore_sinks",
        "rescore_text",
        "tasks",
        "media_links",
        "workers",
        "streams",
        "submitting",
        "pictures",
        "remote_judging",
        "explaining",
        "resources",
        "review_resources",
        "stream_resources",
        "weights",
        "drift_counts",
        "months",
        "drift_resources",
        "drift",
        "service",
        "routes",
        "pages",
        "app",
        "openapi",
        "commands",
    ),
    "trainers": (
        "processes",
        "depthwise",
        "readout",
        "weighted",
        "runlog",
        "metrics",
        "calibration_fit",
        "likelihood",
        "augment",
        "data",
        "losses",
        "xception_package",
        "pretrained",
        "config",
        "recipes",
        "start",
        "schedules",
        "meter",
        "average",
        "paired",
        "gate",
        "promote",
        "evaluation",
        "copies",
        "segments",
        "teachers",
        "teacher_cache",
        "covers",
        "trainee",
        "preparation",
        "validation_sets",
        "validation",
        "loop",
        "calibrate",
        "run",
        "retraining",
        "cli",
        "commands",
        "__main__",
    ),
}


def name_of(path: Path) -> str:
    """The module name of this file, such as `pipeline.faces` or `pipeline.faces.boxes`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    """The source of every module by name."""
    files = [path for package in ROOMS for path in sorted((ROOT / package).rglob("*.py"))]
    return {name_of(path): path.read_text("utf-8") for path in files}


def imported(source: str, modules: Container[str]) -> Iterator[tuple[int, str]]:
    """Line and module of every import, including those in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in modules else node.module


def rank(module: str) -> tuple[int, int]:
    """Position of a module's package, and of its room in the package; the package itself comes first."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return ORDER.index(package), ROOMS[package].index(room) if room else -1


def upward_imports(modules: Mapping[str, str]) -> list[str]:
    """Imports of something later in the order."""
    return [
        f"{name}:{line} imports {target}"
        for name, source in modules.items()
        for line, target in imported(source, modules)
        if target.split(".")[0] in ORDER
        and (target.split(".")[0] not in ROOMS or (rank(target) > rank(name) and rank(name)[1] >= 0))
    ]


def import_cycle(modules: Mapping[str, str]) -> list[str]:
    """Modules that form an import cycle, including imports in functions; empty without a cycle."""
    graph = {
        name: {target for _, target in imported(source, modules) if target in modules and target != name}
        for name, source in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_run_one_way_without_cycles() -> None:
    modules = sources()
    assert len(modules) > 200
    assert upward_imports(modules) == []
    assert import_cycle(modules) == []


def test_the_client_belongs_to_no_other_package() -> None:
    modules = sources()
    for name, source in modules.items():
        users = {target.partition(".")[0] for _, target in imported(source, modules)} & set(ROOMS)
        assert name.startswith("client") or "client" not in users, name
    loaded = loaded_by("import client")
    assert "httpx" in loaded
    assert loaded.isdisjoint({"models", "pipeline", "web", "trainers", "pydantic", "numpy", "cryptography", "fastapi"})


def test_all_rooms_are_listed() -> None:
    for package, rooms in ROOMS.items():
        found = {
            path.stem
            for path in (ROOT / package).iterdir()
            if path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
        }
        assert found - {"__init__"} == set(rooms), package


@pytest.mark.parametrize(
    ("name", "source", "found"),
    [
        ("models.zoo", "import pipeline.types", ["pipeline.types"]),
        ("models.zoo", "def f():\n    from trainers.loop import run", ["trainers.loop"]),
        ("pipeline.scan", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trainers", ["trainers"]),
        ("pipeline.scan", "import models\nfrom pipeline import types", []),
        ("pipeline.scan", "from pipeline.worker.loop import Worker", ["pipeline.worker.loop"]),
        ("pipeline.scan", "def f():\n    from pipeline.results import report", ["pipeline.results.report"]),
        ("pipeline.faces.boxes", "def f():\n    from pipeline import scoring", ["pipeline.scoring"]),
        ("pipeline.faces.boxes", "from pipeline.faces.crop import crops_of", []),
        ("trainers.loop", "import models, pipeline, torch", []),
        ("trainers.loop", "import tests.media", ["tests.media"]),
        ("trainers.loop", "from trainers.commands.data import app", ["trainers.commands.data"]),
    ],
)
def test_a_planted_upward_import_is_found(name: str, source: str, found: list[str]) -> None:
    # Only the names of the other modules matter here.
    modules = dict.fromkeys(sources(), "") | {name: source}
    assert [line.split(" imports ")[1] for line in upward_imports(modules)] == found


def test_a_planted_cycle_with_a_late_import_is_found() -> None:
    planted = {
        "pipeline.faces.a": "from pipeline.faces.b import f",
        "pipeline.faces.b": "def f():\n    from pipeline.faces import a",
    }
    assert set(import_cycle(planted)) == set(planted)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done


def loaded_by(statement: str) -> set[str]:
    """Top-level packages loaded by a statement."""
    return set(python("-c", f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')").stdout.split("\n"))


# Runs each line of its input as a command, and writes its exit code, its outputs and what is loaded by then.
COMMANDS = """
import contextlib, io, json, sys
from pipeline.cli import main
for line in sys.stdin.read().splitlines():
    sys.argv[1:] = line.split()
    outputs = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(outputs[0]), contextlib.redirect_stderr(outputs[1]):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, *(each.buffer.getvalue().decode() for each in outputs), list(sys.modules)]))
"""


def after(commands: Sequence[str]) -> Iterator[tuple[str, int, str, str, set[str]]]:
    """Each command of one new process: its exit code and outputs, and the modules that are loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for command, line in zip(commands, lines, strict=True):
        code, said, failed, modules = json.loads(line)
        yield command, code, said, failed, set(modules)


def test_help_loads_nothing_heavy() -> None:
    named = (
        "scan",
        "models",
        "doctor",
        "bench",
        "plan",
        "train",
        "evaluate",
        "data",
        "promote",
        "rollback",
        "serve",
        "keys",
        "retrain",
        "canary",
        "rescore",
        "drift",
    )
    for command, code, said, failed, loaded in after(["--version", *(f"{name} --help" for name in named), "--help"]):
        assert (code, failed) == (0, ""), command
        assert said, command
        assert "typer" in loaded
        assert loaded.isdisjoint(HEAVY), command


def test_a_missing_file_is_reported_without_torch() -> None:
    commands = [
        "scan clip.mp4 --weights absent",
        "bench tests/test_imports.py --weights absent",
        "evaluate --manifest absent.csv",
        "evaluate --manifest tests --weights absent",
        "calibrate absent.safetensors --manifest tests --out out.safetensors",
        "train xception --manifest absent.csv",
        "average absent.safetensors --out out.safetensors",
        "models graph absent --out out.graph",
        "models export absent --to onnx --out out.onnx",
        "models difference absent --out out.difference",
        "models import absent --layout deepfakebench-xception --out out.safetensors",
        "serve --weights absent --port 0 --folder absent",
    ]
    for command, code, _, failed, loaded in after(commands):
        assert code == 2, f"{command}: {failed}"
        assert loaded.isdisjoint({"torch", "timm", "openvino"}), command


def test_the_decode_child_loads_only_the_decoders() -> None:
    loaded = loaded_by("import pipeline.video.forkserver")
    assert loaded >= {"av", "cv2", "numpy"}
    assert loaded.isdisjoint({"torch", "pydantic", "openvino", "timm", "rich", "structlog", "fsspec"})


def test_the_web_service_needs_no_torch() -> None:
    loaded = loaded_by("import web.app, web.commands.serve, web.commands.keys")
    assert "fastapi" in loaded
    assert loaded.isdisjoint({"torch", "timm", "torchvision", "facenet_pytorch"})


def test_traces_are_imported_only_where_they_are_asked_for() -> None:
    modules = sources()
    targets = {(name, target) for name, source in modules.items() for _, target in imported(source, ())}
    assert {name for name, target in targets if target.partition(".")[0] == "opentelemetry"} == {"pipeline.otel"}
    # redis-py imports API and SDK by itself, where they are installed.
    loaded = loaded_by(
        "import os\n"
        "for name in [name for name in os.environ if name.startswith('OTEL_')]: del os.environ[name]\n"
        "import pipeline.worker.run, pipeline.submit, pipeline.live.sender, web.app, web.commands.serve\n"
        "from pipeline import tracing\n"
        "with tracing.exporting('unmask-test'), tracing.span('clip'): tracing.inject()"
    )
    assert "pipeline.tracing" in loaded
    assert loaded.isdisjoint({"pipeline.otel", "opentelemetry.sdk.trace.export", "opentelemetry.exporter"})
