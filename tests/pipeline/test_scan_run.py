"""Early ends of `scan_run.run`: each with a reason and the documented exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import detectors, scan_run
from pipeline.cli import build
from pipeline.scan_run import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_NOT_WRITTEN, EXIT_SOME_OUTCOME, Options
from pipeline.scanner_options import ScannerOptions
from pipeline.video.window import Window
from tests.weights import small_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_weights(path)
    return path


@pytest.fixture
def options(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Options for a missing clip, so that nothing is decoded."""
    monkeypatch.setenv("COLUMNS", "400")
    scanner = ScannerOptions(backend="torch", device="cpu")
    return Options(paths=(str(tmp_path / "missing.mp4"),), scanner=scanner, weights=str(weights))


def complaint(options: Options, capsys: pytest.CaptureFixture[str]) -> str:
    """The message on standard error, on one line, after the options were refused."""
    assert scan_run.run(options) == EXIT_BAD_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    return " ".join(said.err.split())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "resnet", "untrained": True, "weights": None}, "xception"),
        ({"scanner": ScannerOptions(face_detector="eyes")}, "mtcnn, yunet"),
        ({"scanner": ScannerOptions(backend="tensorrt")}, "openvino, torch"),
        ({"scanner": ScannerOptions(device="quantum")}, "quantum"),
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_a_bad_option_lists_what_is_available(
    changes: dict[str, Any], says: str, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in complaint(replace(options, **changes), capsys)


def test_a_folder_without_clips(options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[bold]texts[/]"
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.txt").touch()
    said = complaint(replace(options, paths=(str(folder),)), capsys)
    assert "[bold]texts[/] held 1 no media by content, 1 sub-folders (--recursive)." in said


def test_what_was_left_out_is_listed_with_its_reason(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, listed = tmp_path / "in", tmp_path / "skipped.jsonl"
    (folder / "sub").mkdir(parents=True)
    (folder / "clip.mp4").touch()
    (folder / os.fsdecode(b"note\xff.txt")).touch()
    for _ in range(2):
        assert scan_run.run(replace(options, paths=(str(folder),), skipped=listed)) == EXIT_SOME_OUTCOME
        said = capsys.readouterr().out
        assert "skipped: 1 no media by content, 1 sub-folders (--recursive)" in said
        assert "skipped files: " in said
    assert [json.loads(line) for line in listed.read_text().splitlines()] == [
        {"skipped": str(folder / "note\\xff.txt"), "reason": "no media by content"},
        {"skipped": str(folder / "sub"), "reason": "sub-folders (--recursive)"},
    ]
    listed.write_text("a diary")
    assert "--skipped:" in complaint(replace(options, paths=(str(folder),), skipped=listed), capsys)


def test_resume_refuses_a_file_without_records(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    assert "is not a file of records" in complaint(replace(options, jsonl=notes, resume=True), capsys)
    assert "not a verdict record" in complaint(replace(options, jsonl=notes, resume=True, force=True), capsys)
    assert notes.read_text() == "dear diary\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("output", ["jsonl", "report"])
def test_a_full_disk_loses_no_verdict_that_was_reached(
    output: str, options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {output: Path("/dev/full")}
    assert scan_run.run(replace(options, **changes)) == EXIT_NOT_WRITTEN
    said = capsys.readouterr()
    assert f"--{output}: No space left on device" in " ".join(said.err.split())
    assert "missing.mp4" in said.out, "the summary has the verdict"
    assert f"{'records' if output == 'jsonl' else output}: /dev/full" not in said.out
    assert Path("/dev/full").is_char_device(), "no file in place of the device"


def made(folder: Path) -> tuple[Path, Path]:
    """Two inputs; neither is media, so that nothing is decoded."""
    inputs = folder / "a.mp4", folder / "b.mp4"
    for path in inputs:
        path.write_text(f"evidence of {path.name}")
    return inputs


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("how", ["jsonl", "report", "missing", "link", "hard link", "folder", "both"])
def test_evidence_is_never_overwritten(
    how: str, force: bool, options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = made(tmp_path)
    link, hard = tmp_path / "link.jsonl", tmp_path / "hard.html"
    link.symlink_to(first)
    hard.hardlink_to(second)
    changes: dict[str, Any] = {
        "jsonl": {"jsonl": first},
        "report": {"report": second},
        "missing": {"jsonl": tmp_path / "x.mp4", "paths": (str(tmp_path / "x.mp4"),)},
        "link": {"jsonl": link},
        "hard link": {"report": hard},
        "folder": {"jsonl": tmp_path / "sub" / ".." / "a.mp4", "paths": (str(tmp_path),)},
        "both": {"jsonl": tmp_path / "x", "report": tmp_path / "sub" / ".." / "x"},
    }[how]
    (tmp_path / "sub").mkdir()
    said = complaint(replace(options, **{"paths": (str(first), str(second)), "force": force} | changes), capsys)
    assert ("are the same file" if how == "both" else "would replace an input") in said
    assert (first.read_text(), second.read_text()) == ("evidence of a.mp4", "evidence of b.mp4")
    assert link.is_symlink()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("output", ["jsonl", "report"])
def test_only_earlier_outputs_are_replaced(
    output: str, options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    changes: dict[str, Any] = {output: path}
    path.write_text("dear diary\n")
    said = complaint(replace(options, **changes), capsys)
    assert f"--{output}: {path} exists and is not" in said
    assert "--force" in said
    assert path.read_text() == "dear diary\n"
    # Forced, it is replaced; what is now there is ours, and is replaced without force; so is an empty file.
    for force, clear in ((True, False), (False, False), (False, True)):
        if clear:
            path.write_bytes(b"")
        assert scan_run.run(replace(options, force=force, **changes)) == EXIT_SOME_OUTCOME
        assert "missing.mp4" in path.read_text()


@pytest.mark.parametrize("output", ["jsonl", "report"])
def test_a_link_stays_and_its_file_is_written(output: str, options: Options, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    changes: dict[str, Any] = {output: link}
    for _ in range(2):
        assert scan_run.run(replace(options, **changes)) == EXIT_SOME_OUTCOME
        assert link.is_symlink()
        assert "missing.mp4" in (tmp_path / "there" / "file").read_text()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["file"]


@pytest.mark.parametrize("output", ["jsonl", "report"])
def test_a_pipe_is_written_to(output: str, options: Options, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    changes: dict[str, Any] = {output: pipe}
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert scan_run.run(replace(options, **changes)) == EXIT_SOME_OUTCOME
        assert "missing.mp4" in read.result()
    assert pipe.is_fifo()


@pytest.mark.parametrize("output", ["jsonl", "report"])
def test_outputs_are_checked_before_the_scan(
    output: str, options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "out"):
        changes: dict[str, Any] = {output: path}
        assert f"--{output}:" in complaint(replace(options, **changes), capsys)


def test_bad_options_leave_earlier_records_alone(options: Options, tmp_path: Path) -> None:
    records = tmp_path / "out.jsonl"
    records.write_text("earlier\n")
    assert scan_run.run(replace(options, jsonl=records, scanner=ScannerOptions(backend="tensorrt"))) == EXIT_BAD_INPUT
    assert records.read_text() == "earlier\n"


def test_a_bad_environment(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNMASK_MAX_FETCH_BYTES", "plenty")
    said = complaint(options, capsys)
    assert "UNMASK_MAX_FETCH_BYTES: Input should be" in said


def test_an_interrupt_while_the_model_loads(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(detectors, "load", interrupted)
    assert scan_run.run(options) == EXIT_INTERRUPTED
    said = capsys.readouterr()
    assert "Interrupted" in said.err
    assert "0 clips" not in said.out


def test_an_output_that_cannot_be_made_is_named_itself(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(replace(options, jsonl=Path("/proc/records.jsonl")), capsys)
    assert "--jsonl" in said
    assert "'/proc/records.jsonl'" in said


def test_records_survive_an_output_that_cannot_hold_their_letters(tmp_path: Path) -> None:
    (clip := tmp_path / "Gr\u00f6\u00dfe \u65e5\u672c \U0001f600.mp4").write_bytes(b"no video")
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "scan", str(clip), "--jsonl", "-"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=300)
    assert done.returncode == EXIT_SOME_OUTCOME, done.stderr
    assert json.loads(done.stdout.decode("ascii"))["source"] == str(clip)


def test_weights_are_never_overwritten(
    options: Options, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = weights.read_bytes()
    clip, _ = made(tmp_path)
    said = complaint(replace(options, paths=(str(clip),), jsonl=weights, force=True), capsys)
    assert "--jsonl would replace an input" in said
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [["--start", "5", "--end", "5"], ["--end", "0"], ["--start", "nan"], ["--start", "2e9"]]
)
def test_an_impossible_part_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(build(["scan"]), ["scan", "clip.mp4", *arguments])
    assert result.exit_code == EXIT_BAD_INPUT
    assert "--start" in result.output or "--end" in result.output


@pytest.mark.slow
def test_resuming_judges_another_part_again(options: Options, one_face: Path, tmp_path: Path) -> None:
    log = tmp_path / "out.jsonl"
    options = replace(options, paths=(str(one_face),), jsonl=log, resume=True)
    for part in (Window(1.0, 3.0), Window(1.0, 3.0), Window(2.0)):
        scan_run.run(replace(options, part=part))
        (record,) = (json.loads(line) for line in log.read_text("utf-8").splitlines())
        assert record["part"]["start_s"] == part.start_s
