"""`unmask data prepare` and `unmask data check` from end to end."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trainers.commands.data import app
from trainers.data.manifest import Manifest

RUNNER = CliRunner()


def run(*arguments: str | Path) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def data_set(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("command") / "set"
    shutil.copytree(pair, root)
    shutil.rmtree(root / "fake" / "cut")
    return root


def test_prepare_and_check(data_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("prepare", "folder", data_set, out, "--frames", "2", "--size", "64", "--split", "train")
    assert done.exit_code == 0, done.output
    assert "fakes cut at the places of their originals: 1; 1 show other pictures" in done.output
    manifest = Manifest.read(out / "manifest.parquet")
    assert set(manifest.method.tolist()) == {"", "blend", "other"}
    passed = run("check", out / "manifest.parquet")
    assert passed.exit_code == 0, passed.output
    assert "fit: 6 rows" in passed.output

    manifest.write(out / "rows.csv")
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["split"] = "val" if row["method"] == "other" else "train"
    Manifest.of(rows, out).write(out / "leaky.csv")
    refused = run("check", out / "leaky.csv", "--no-images")
    assert refused.exit_code == 2
    assert "violation group_in_two_splits: 1" in refused.output
    assert "unfit: 6 rows, pictures not checked; group_in_two_splits" in refused.output


def test_failed_videos_give_exit_code_3(data_set: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(data_set / "real", root / "real")
    (root / "real" / "text.mp4").write_text("not a video")
    done = run("prepare", "folder", root, tmp_path / "out", "--frames", "2", "--size", "64", "--png")
    assert done.exit_code == 3, done.output
    assert "videos without crops: 1 (1 undecodable)" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare", "folder", "{tmp}", "{tmp}/out"), "expected labels.csv, or folders real and fake"),
        (("prepare", "folder", "{set}", "{tmp}/out", "--val-share", "0.9", "--test-share", "0.2"), "leave some for"),
        (("prepare", "folder", "{set}", "{tmp}/out", "--methods", "swap"), "has no videos of swap"),
        (("prepare", "folder", "{set}", "{tmp}/out", "--detector", "haar"), "unknown face detector"),
        (("prepare", "nothing", "{set}", "{tmp}/out"), "nothing"),
        (("check", "{tmp}/gone.csv"), "cannot be read"),
    ],
)
def test_bad_input_gives_exit_code_2(data_set: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    refused = run(*(argument.format(tmp=tmp_path, set=data_set) for argument in arguments))
    assert refused.exit_code == 2
    assert message in refused.output
