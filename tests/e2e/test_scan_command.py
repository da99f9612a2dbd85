"""`unmask scan` as a user runs it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.contracts import Verdict, clip_id_of
from tests import media
from tests.e2e.conftest import UNMASK, Command, processes_in, records

# The cheapest detector that is built in; what it says does not matter here.
SCORING = ("--untrained", "--frames", "3")


def test_broken_inputs_beside_good_ones_each_end_in_a_typed_outcome(
    unmask: Command, good_clips: list[Path], tmp_path: Path
) -> None:
    broken = media.broken_inputs(tmp_path)
    out, report = tmp_path / "out.jsonl", tmp_path / "out.html"
    done = unmask("scan", *good_clips, *broken.values(), *SCORING, "--jsonl", out, "--report", report, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert processes_in(tmp_path) == []
    by_source = {record["source"]: record for record in records(out)}
    assert set(by_source) == {str(path) for path in (*good_clips, *broken.values())}
    for path in good_clips:
        assert by_source[str(path)]["outcome"] == "scored"
        assert by_source[str(path)]["frames_scored"] == 3
    outcomes = {what: by_source[str(path)]["outcome"] for what, path in broken.items()}
    assert outcomes == {
        "empty": "undecodable",
        "truncated": "undecodable",
        "random": "undecodable",
        "text": "undecodable",
        "audio only": "undecodable",
        "one pixel": "no_face",
        "huge": "over_limit",
        "wrong extension": "scored",
        "folder": "unavailable",
        "missing": "unavailable",
    }
    for record in by_source.values():
        Verdict.model_validate(record)
        assert record["id"] == clip_id_of(record["source"])
        assert record["provenance"]["untrained"] is True
        assert (record["error"] is None) == (record["outcome"] == "scored")
    assert "untrained: scores mean nothing" in done.stdout
    assert "untrained: scores mean nothing" in report.read_text()


def test_resume_keeps_what_is_there_and_scans_what_changed(
    unmask: Command, good_clips: list[Path], tmp_path: Path
) -> None:
    clips = [tmp_path / path.name for path in good_clips]
    for clip, good in zip(clips, good_clips, strict=True):
        clip.write_bytes(good.read_bytes())
    out = tmp_path / "out.jsonl"
    assert unmask("scan", *clips[:2], *SCORING, "--jsonl", out).returncode == 0
    first = {record["source"]: record for record in records(out)}
    clips[1].write_bytes(good_clips[2].read_bytes())
    with out.open("a") as file:
        file.write('{"schema": 1, "id": "torn')
    again = unmask("scan", *clips, *SCORING, "--jsonl", out, "--resume")
    assert again.returncode == 0, again.stderr
    second = {record["source"]: record for record in records(out)}
    assert len(records(out)) == 3
    assert second[str(clips[0])] == first[str(clips[0])]
    assert second[str(clips[1])]["provenance"]["source_sha256"] != first[str(clips[1])]["provenance"]["source_sha256"]
    assert second[str(clips[1])]["probability"] == pytest.approx(second[str(clips[2])]["probability"], abs=0.01)
    assert "there already (--resume): 1" in again.stdout


@pytest.mark.parametrize("to_group", [True, False])
def test_an_interrupt_leaves_whole_records_and_no_process(
    to_group: bool, good_clips: list[Path], tmp_path: Path
) -> None:
    long = tmp_path / "long.mp4"
    media.make_long_clip(long, minutes=20, size=(320, 240))
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [UNMASK, "scan", good_clips[0], long, "--untrained", "--every", "1", "--jsonl", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=tmp_path,
    ) as scan:
        # The first record says that it is well under way; the long clip takes minutes more.
        while not (out.exists() and out.read_text().endswith("\n")):
            assert scan.poll() is None, scan.communicate()
            with pytest.raises(subprocess.TimeoutExpired):
                scan.wait(0.2)
        assert len(processes_in(tmp_path)) > 1
        if to_group:
            os.killpg(scan.pid, signal.SIGINT)
        else:
            scan.send_signal(signal.SIGINT)
        scan.communicate(timeout=60)
    assert scan.returncode == 130
    assert [record["source"] for record in records(out)] == [str(good_clips[0])]
    assert processes_in(tmp_path) == []


def test_a_terminal_shows_rate_and_time_left(good_clips: list[Path]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [UNMASK, "scan", *good_clips, "--untrained", "--every", "2"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    ) as scan:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:
            # Linux tells the end of a pseudo-terminal so.
            assert scan.wait(60) == 0
    os.close(ours)
    assert b"frames/s" in shown
    assert b"3/3 clips" in shown
    assert b"left" in shown


def test_records_on_standard_output_leave_it_to_them(unmask: Command, good_clips: list[Path]) -> None:
    done = unmask("scan", good_clips[0], "--untrained", "--keyframes", "--jsonl", "-")
    assert done.returncode == 0, done.stderr
    record = Verdict.model_validate_json(done.stdout)
    assert record.provenance.sampling == "keyframes"
    assert "1 scored" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.mp4"], "--weights"),
        (["a.mp4", "--untrained", "--fps", "2", "--frames", "3"], "exclude each other"),
        (["a.mp4", "--untrained", "--resume"], "--jsonl"),
        (["a.mp4", "--untrained", "--workers", "many"], "--workers"),
        (["a.mp4", "--untrained", "--detector", "eyes"], "mtcnn"),
        (["a.mp4", "--untrained", "--architecture", "resnet"], "swin_transformer"),
        (["a.mp4", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
        ([".", "--untrained"], "No clips"),
    ],
)
def test_bad_options_say_what_is_wanted(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [UNMASK, "scan", *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert says in done.stderr


def test_help_loads_nothing_heavy() -> None:
    check = (
        "import sys; from pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'cv2', 'av', 'openvino', 'timm') if name in sys.modules], file=sys.stderr)"
    )
    for arguments in (["--help"], ["scan", "--help"], ["bench", "--help"], ["models", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", check, *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stderr.strip() == "[]"
        assert "Usage" in done.stdout
