"""Early ends of `scan_run.run`: each with a reason and the documented exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import assembly, scan_run
from pipeline.scan_run import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Options
from pipeline.scanner_options import ScannerOptions


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Options for a missing clip, so that nothing is decoded."""
    return Options(
        paths=(str(tmp_path / "missing.mp4"),), scanner=ScannerOptions(backend="torch", device="cpu"), untrained=True
    )


def complaint(options: Options, capsys: pytest.CaptureFixture[str]) -> str:
    """The message on standard error, on one line, after the options were refused."""
    assert scan_run.run(options) == EXIT_BAD_INPUT
    said = capsys.readouterr()
    assert said.out == ""
    return " ".join(said.err.split())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": "resnet"}, "xception"),
        ({"scanner": ScannerOptions(face_detector="eyes")}, "mtcnn, yunet"),
        ({"scanner": ScannerOptions(backend="tensorrt")}, "openvino, torch"),
        ({"scanner": ScannerOptions(device="quantum")}, "quantum"),
        ({"untrained": False, "weights": "nowhere.safetensors"}, "nowhere.safetensors"),
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
    assert "No clips: 1 files looked at" in said
    assert "[bold]texts[/]" in said.replace(" ", "")


def test_resume_refuses_a_file_without_records(
    options: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("dear diary\n")
    assert "not a verdict record" in complaint(replace(options, jsonl=notes, resume=True), capsys)
    assert notes.read_text() == "dear diary\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_the_scan_with_a_reason(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--jsonl: [Errno 28]" in complaint(replace(options, jsonl=Path("/dev/full")), capsys)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_report_that_cannot_be_written_ends_with_a_reason(
    options: Options, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by a file in place of the device."""
    assert "--report: [Errno 28]" in complaint(replace(options, report=Path("/dev/full")), capsys)
    assert Path("/dev/full").is_char_device()


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

    monkeypatch.setattr(assembly, "load", interrupted)
    assert scan_run.run(options) == EXIT_INTERRUPTED
    assert "Interrupted" in capsys.readouterr().err
