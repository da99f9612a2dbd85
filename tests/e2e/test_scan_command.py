"""`unmask scan` from the command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.contracts import Outcome, Verdict, clip_id_of
from tests import media
from tests.e2e.conftest import UNMASK, Command, processes_in, records

UNTRAINED = "untrained: scores mean nothing"


def test_a_folder_of_good_clips(first_scan: subprocess.CompletedProcess[str], good_clips: Path) -> None:
    assert first_scan.returncode == 0, first_scan.stderr
    found = records(good_clips / "out.jsonl")
    assert sorted(found) == ["a.mp4", "b.mp4", "c.mkv"]
    for source, record in found.items():
        verdict = Verdict.model_validate(record)
        assert (verdict.outcome, verdict.id) == (Outcome.SCORED, clip_id_of(source))
        assert (verdict.frames_sampled, verdict.frames_scored, len(verdict.people)) == (4, 4, 1)
        assert verdict.label == "fake"
        assert (verdict.provenance.model, verdict.provenance.sampling) == ("small", "frames=4")
        assert not verdict.provenance.untrained
    assert "3 clips: 3 scored" in first_scan.stdout
    assert UNTRAINED not in first_scan.stdout


def test_broken_inputs_among_good_ones_end_in_typed_outcomes(
    unmask: Command,
    first_scan: subprocess.CompletedProcess[str],
    good_clips: Path,
    weights: Path,
    tmp_path: Path,
) -> None:
    broken = media.broken_inputs(tmp_path)
    good = [good_clips / name for name in ("a.mp4", "b.mp4", "c.mkv")]
    done = unmask(
        *("scan", *good, *broken.values(), "--weights", weights, "--frames", 4, "--jsonl", "out.jsonl"), cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr
    assert processes_in(tmp_path) == []
    found = records(tmp_path / "out.jsonl")
    assert set(found) == {str(path) for path in (*good, *broken.values())}
    assert {what: found[str(path)]["outcome"] for what, path in broken.items()} == {
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
    for record in found.values():
        Verdict.model_validate(record)
        if record["outcome"] != "scored":
            assert record["error"] in "".join(done.stdout.split("\n"))
    # A clip's score does not depend on the other clips of the run.
    before = records(good_clips / "out.jsonl")
    for path in good:
        assert found[str(path)]["probability"] == pytest.approx(before[path.name]["probability"], abs=1e-4)


def test_resume_scans_changed_and_missing_clips(
    unmask: Command, first_scan: subprocess.CompletedProcess[str], good_clips: Path, weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(good_clips, folder)
    shutil.copy(folder / "c.mkv", folder / "b.mp4")
    out = folder / "out.jsonl"
    before = records(out)
    kept, elsewhere = (Verdict.model_validate(before[name]) for name in ("a.mp4", "c.mkv"))
    elsewhere = elsewhere.model_copy(update={"source": "elsewhere.mp4", "id": clip_id_of("elsewhere.mp4")})
    lines = [kept, Verdict.model_validate(before["b.mp4"]), elsewhere]
    out.write_text("".join(line.to_json() + "\n" for line in lines) + '{"schema": 1, "id": "torn')
    done = unmask("scan", ".", "--weights", weights, "--frames", 4, "--jsonl", "out.jsonl", "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    after = records(out)
    assert sorted(after) == ["a.mp4", "b.mp4", "c.mkv", "elsewhere.mp4"]
    assert after["a.mp4"] == before["a.mp4"]
    assert after["b.mp4"]["provenance"]["source_sha256"] == before["c.mkv"]["provenance"]["source_sha256"]
    assert after["b.mp4"]["probability"] == pytest.approx(before["c.mkv"]["probability"], abs=1e-4)
    assert "already judged (--resume): 1" in done.stdout
    assert "3 clips: 3 scored" in done.stdout


def test_untrained_weights_mark_every_output(unmask: Command, good_clips: Path, tmp_path: Path) -> None:
    """Standard output has only the records."""
    report = tmp_path / "out.html"
    options = ("--untrained", "--backend", "torch", "--keyframes", "--jsonl", "-", "--report", report)
    done = unmask("scan", good_clips / "a.mp4", *options)
    assert done.returncode == 0, done.stderr
    verdict = Verdict.model_validate_json(done.stdout)
    assert verdict.provenance.untrained
    assert (verdict.provenance.model, verdict.provenance.sampling) == ("xception", "keyframes")
    assert "1 clip: 1 scored" in done.stderr
    assert UNTRAINED in done.stderr
    assert UNTRAINED in report.read_text()


def test_a_terminal_shows_rate_and_time_left(first_scan: subprocess.CompletedProcess[str]) -> None:
    for part in ("frames/s", "faces/s", "3/3 clips", "left"):
        assert part in first_scan.stderr


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes: scoring every frame takes minutes."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    media.make_long_clip(path, minutes=20, size=(320, 240))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "sampling"),
    [
        ("the process", ("--every", "1")),
        ("its group, as a terminal does", ("--fps", "25")),
        ("the process, by SIGTERM", ("--every", "1")),
    ],
)
def test_an_interrupt_leaves_complete_records_and_no_process(
    to: str, sampling: tuple[str, str], good_clips: Path, long_clip: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    with subprocess.Popen(
        [UNMASK, "scan", good_clips / "a.mp4", long_clip, "--weights", weights, *sampling, "--jsonl", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    ) as scan:
        try:
            # When the record of the short clip is written, the long one is being scanned.
            while not (out.exists() and out.stat().st_size):
                with suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"ended with {scan.wait(0.1)}: {scan.communicate()[0]}")
            assert len(processes_in(tmp_path)) > 1
            if to.startswith("its group"):
                os.killpg(scan.pid, signal.SIGINT)
            else:
                scan.send_signal(signal.SIGTERM if "SIGTERM" in to else signal.SIGINT)
            said, _ = scan.communicate(timeout=100)
        finally:
            scan.kill()
    assert scan.returncode == 130
    assert "Interrupted after 1 of 2 clips" in said
    assert "Traceback" not in said
    (record,) = records(out).values()
    assert (record["outcome"], record["frames_sampled"]) == ("scored", 50)
    assert record["provenance"]["sampling"] == "=".join(sampling).removeprefix("--")
    assert processes_in(tmp_path) == []
