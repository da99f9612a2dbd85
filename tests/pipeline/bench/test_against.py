"""`unmask bench --against`: figures compared with earlier ones; and bad options, which are found at once."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from pipeline.bench.against import BaselineError, compare, read_baseline
from pipeline.bench.run import Result, sha256_of
from pipeline.commands.bench import run

app = Typer()
app.command()(run)

RESULT = Result(
    clip="a.mp4", clip_sha256="0" * 64, architecture="xception", network="xception over b", input_spec="s",
    detector="mtcnn", backend="openvino-f32", sampling="every=1", workers=3, rounds=5, faces_a_frame=1.0,
    detections_a_frame=0.1, stages_ms={}, share_ms={}, bound_fps=60.0, whole_fps=50.0, whole_faces_s=50.0,
    of_bound=0.8, bottleneck="classify", streams={}, plain_fps=None, times_plain=None,
)  # fmt: skip


def baseline(tmp_path: Path, *results: Result) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"machine": "m", "results": [result.to_dict() for result in results]}))
    return path


@pytest.mark.parametrize(
    ("fps", "slower"), [(44.9, True), (45.1, False), (50.0, False), (80.0, False)], ids=lambda value: str(value)
)
def test_more_than_a_tenth_slower_fails(tmp_path: Path, fps: float, slower: bool) -> None:
    (ratio,) = compare([replace(RESULT, whole_fps=fps)], read_baseline(baseline(tmp_path, RESULT)))
    assert ratio.slower is slower
    assert ratio.ratio == pytest.approx(fps / 50)
    assert ratio.name == "a.mp4, xception, mtcnn, openvino-f32"


def test_only_equal_combinations_are_compared(tmp_path: Path) -> None:
    others = [
        replace(RESULT, **{name: "other"})
        for name in ("clip_sha256", "network", "input_spec", "detector", "backend", "sampling", "workers")
    ]
    found = read_baseline(baseline(tmp_path, RESULT))
    assert len(compare([*others, RESULT], found)) == 1
    with pytest.raises(
        BaselineError, match=r"nothing to compare: the baseline measured network xception over b, input_spec s"
    ):
        compare(others, found)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"results": [1]}',
        *(json.dumps({"machine": "m", "results": [RESULT.to_dict() | {"whole_fps": fps}]}) for fps in (0, math.inf)),
        "[" * 100_000,
        '{"machine": "m", "results": [{"clip": "of an earlier version"}]}',
    ],
)
def test_other_files_are_no_baseline(tmp_path: Path, content: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(BaselineError, match=r"baseline\.json: not what"):
        read_baseline(path)
    with pytest.raises(BaselineError, match="cannot be read"):
        read_baseline(tmp_path / "nowhere.json")


def test_the_command_prints_ratios_and_fails_if_slower(
    tmp_path: Path, one_face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = sha256_of(one_face)
    now = replace(RESULT, clip_sha256=sha256)
    monkeypatch.setattr("pipeline.bench.run.bench", lambda clip, **options: replace(now, rounds=options["rounds"]))
    against = ["--against", str(baseline(tmp_path, replace(now, whole_fps=60.0)))]
    out = tmp_path / "now.json"
    arguments = [str(one_face), "--architecture", "xception", "--detector", "mtcnn"]
    result = CliRunner().invoke(app, [*arguments, *against, "--json", str(out)])
    assert result.exit_code == 3, result.output
    assert "50.0 frames/s, 0.83 of the baseline's 60.0: SLOWER" in result.output
    assert json.loads(out.read_text())["results"][0]["rounds"] == 5
    result = CliRunner().invoke(app, [*arguments, "--against", str(out), "--json", "-"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["results"][0]["whole_fps"] == 50
    assert "as before" in result.stderr
    assert "of another machine" not in result.stderr


def test_other_clips_and_machines_are_named_first(tmp_path: Path, one_face: Path) -> None:
    done = CliRunner().invoke(app, [str(one_face), "--against", str(baseline(tmp_path, RESULT))])
    assert done.exit_code == 2
    assert "nothing to compare: the baseline measured other clips" in done.output


def test_a_clip_is_not_replaced_by_its_figures(tmp_path: Path, one_face: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(one_face.read_bytes())
    done = CliRunner().invoke(app, [str(clip), "--json", str(clip)])
    assert done.exit_code == 2
    assert "--json would replace an input" in done.output
    assert clip.read_bytes() == one_face.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detector", "mtcnn,nope"], "no nope; there are: mtcnn, yunet"),
        (["--looks", "nope"], "nope"),
        (["--workers", "0"], "--workers"),
        (["nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_bad_options_are_reported_before_torch_is_imported(options: list[str], message: str) -> None:
    code = (
        "import sys\nfrom pipeline.cli import main\n"
        "try:\n    main()\nfinally:\n    print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "bench", *options],
        env={"PATH": "/usr/bin", "UNMASK_DATA": "/nowhere", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.splitlines()[-1] == "False"
