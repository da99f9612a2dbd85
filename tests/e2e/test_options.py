"""Bad options end with code 2 and a hint. Errors found after the model is loaded: tests/pipeline/test_scan_run.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "PATH..."),
        (["a.mp4", "--untrained", "--weights", "b.safetensors"], "--weights"),
        (["a.mp4", "--untrained", "--fps", "2", "--frames", "3"], "exclude each other"),
        (["a.mp4", "--untrained", "--every", "2", "--keyframes"], "exclude each other"),
        (["a.mp4", "--adaptive", "--keyframes"], "exclude each other"),
        (["a.mp4", "--adaptive", "--untrained"], "exclude each other"),
        (["a.mp4", "--untrained", "--fps", "0"], "--fps"),
        (["a.mp4", "--untrained", "--fps", "nan"], "--fps"),
        (["a.mp4", "--untrained", "--resume"], "--jsonl"),
        (["a.mp4", "--untrained", "--resume", "--jsonl", "-"], "--jsonl"),
        (["a.mp4", "--untrained", "--workers", "many"], "--workers"),
        (["a.mp4", "--untrained", "--workers", "0"], "--workers"),
        ([".", "--untrained"], "No clips"),
    ],
)
def test_bad_options_are_named(unmask: Command, arguments: list[str], says: str, tmp_path: Path) -> None:
    done = unmask("scan", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not any(tmp_path.iterdir())


def test_an_unknown_command_is_refused(unmask: Command) -> None:
    done = unmask("scam")
    assert done.returncode == 2
    assert "scam" in done.stderr


def test_the_schema_is_printed(unmask: Command) -> None:
    done = unmask("schema", "verdict")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    assert schema["title"] == "Unmask verdict"
    assert {"schema", "outcome", "probability", "people", "provenance"} <= set(schema["required"])
    assert unmask("schema").stdout == done.stdout
    assert unmask("schema", "weather").returncode == 2
    task = json.loads(unmask("schema", "task").stdout)
    assert set(task["required"]) == {"schema", "video_id", "uri", "source_class", "submitted_at"}
    segment = json.loads(unmask("schema", "segment").stdout)
    assert set(segment["required"]) == {"schema", "stream_id", "sequence", "start_s", "final", "content_type"}
