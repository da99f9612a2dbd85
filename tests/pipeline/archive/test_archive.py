"""`unmask archive`: the records of a scan, whole and once, whatever is killed on the way."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer
from pyarrow import parquet
from typer.testing import CliRunner, Result

from pipeline import scan_run
from pipeline.commands import archive
from pipeline.contracts import Verdict
from pipeline.scanner_options import ScannerOptions
from tests import media
from tests.pipeline.archive.served import ClipServer, clip_server, kill
from tests.web.s3 import BUCKET, s3_server
from tests.weights import small_weights

# As a console script runs it: worker processes import the main module again.
DRIVER = """
import os, resource
import typer
from pipeline.commands.archive import run
if __name__ == "__main__":
    if limit := os.environ.get("MAX_FILE"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    app = typer.Typer()
    app.command()(run)
    app()
"""


ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    small_weights(path)
    return str(path)


@pytest.fixture(scope="module")
def clip(clips: Path) -> Path:
    """One second, small."""
    path = clips / "archived.mp4"
    media.make_clip(path, seconds=1, fps=12, size=(320, 240), face_px=(80, 100))
    return path


@pytest.fixture
def server() -> Iterator[ClipServer]:
    with clip_server() as server:
        yield server


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> str:
    """Extras are tested where they are installed."""
    if request.param == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'unmask[ray]'")
    return str(request.param)


def call(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(archive.run)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def driver(folder: Path, arguments: Sequence[object], **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own, which can be killed."""
    (script := folder / "driver.py").write_text(DRIVER)
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def listed(folder: Path, uris: Sequence[object]) -> Path:
    path = folder / "clips.txt"
    path.write_text("".join(f"{uri}\n" for uri in uris))
    return path


def rows(out: Path) -> list[dict[str, Any]]:
    """What a reader gets of `part-*.parquet`."""
    return [row for part in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]


def is_complete(out: Path, parts: int) -> None:
    """Only the documented files are left."""
    names = {f"part-{number:05d}.{suffix}" for number in range(parts) for suffix in ("parquet", "done")}
    others = {".lock", "_SUCCESS", "failed.csv", "plan.json", "plan.parquet", "summary.json"}
    assert {path.name for path in out.iterdir()} == names | others


def comparable(record: str) -> dict[str, Any]:
    return json.loads(record) | {"elapsed_s": 0.0}


def test_an_archive_has_the_records_of_a_scan(
    clip: Path, no_face: Path, weights: str, server: ClipServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    names = [clip.name, server.uri("b.mp4", clip), str(tmp_path / "missing.mp4"), str(no_face)]
    options = scan_run.Options(
        paths=tuple(names), scanner=ScannerOptions(workers=1), weights=weights, jsonl=tmp_path / "scan.jsonl"
    )
    assert scan_run.run(options) == 3
    scanned = (tmp_path / "scan.jsonl").read_text().splitlines()

    out = tmp_path / "out"
    command = (listed(tmp_path, names), "--out", out, "--weights", weights, "--workers", 1, "--part-files", 3)
    assert (done := call(*command, "--processes", 2)).exit_code == 3, done.output
    assert "4 files: 1 no_face, 2 scored, 1 unavailable" in done.output
    found = rows(out)
    assert [comparable(row["record"]) for row in found] == [comparable(line) for line in scanned]
    for row in found:
        verdict = Verdict.model_validate_json(row["record"])
        assert verdict.to_json() == row["record"]
        for name in ("id", "probability", "likelihood_ratio", "error", "duration_s", "elapsed_s"):
            assert row[name] == getattr(verdict, name), name
        assert (row["uri"], row["outcome"], row["label"]) == (verdict.source, verdict.outcome, verdict.label)
        assert row["people"] == len(verdict.people)
        assert (row["source_sha256"], [row["weights"]]) == (
            verdict.provenance.source_sha256,
            verdict.provenance.weights_sha256,
        )
    is_complete(out, 2)
    with (out / "failed.csv").open() as file:
        assert [(row["uri"], row["outcome"]) for row in csv.DictReader(file)] == [
            (names[2], "unavailable"),
            (names[3], "no_face"),
        ]
    said = json.loads((out / "summary.json").read_text())
    assert (said["files"], said["outcomes"]["scored"], said["not_scored"], said["parts"]) == (4, 2, 2, 2)

    # The same command again judges nothing; another one is refused, with what differs.
    before = {path: path.read_bytes() for path in out.glob("part-*")}
    assert call(*command).exit_code == 3
    assert server.asked["b.mp4"] == 2
    for changes, says in (
        (("--fps", 1), "sampling was fps=2, now fps=1"),
        (("--weights", "unmask-small"), "weights_sha256"),
        (("--part-files", 5), "part_files"),
        (("--detector", "yunet"), "face_detector"),
    ):
        refused = call(*command, *[str(each) for each in changes])
        assert refused.exit_code == 2
        assert says in refused.output.replace('"', ""), refused.output
    listed(tmp_path, names[:2])
    assert "manifest_sha256" in call(*command).output
    assert {path: path.read_bytes() for path in out.glob("part-*")} == before

    # A damaged part is made again.
    listed(tmp_path, names)
    damaged = out / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    # But not by a worker that judges otherwise than the first one, as on a machine of a cluster with other files.
    plan = (out / "plan.json").read_text()
    (out / "plan.json").write_text(plan.replace('"input_spec": "', '"input_spec": "other'))
    refused = call(*command)
    assert (refused.exit_code, "input_spec was" in refused.output) == (2, True), refused.output
    (out / "plan.json").write_text(plan)
    assert call(*command).exit_code == 3
    assert len(rows(out)) == 4


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(
    how: signal.Signals, clip: Path, weights: str, server: ClipServer, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        asked.set()
        go_on.wait()

    server.before["b.mp4"] = hold
    uris = [server.uri(name, clip) for name in ("a.mp4", "b.mp4", "c.mp4")]
    out = tmp_path / "out"
    command = (listed(tmp_path, uris), "--out", out, "--weights", weights, "--workers", 1)
    with driver(tmp_path, command) as process:
        assert asked.wait(120)
        # Another one at the same time is refused.
        assert "another unmask archive" in call(*command).output
        process.send_signal(how)
        if how == signal.SIGTERM:
            said, _ = process.communicate(timeout=120)
            assert process.returncode == 130, said
        process.wait(60)
    go_on.set()
    del server.before["b.mp4"]
    assert (done := call(*command)).exit_code == 0, done.output
    assert [row["uri"] for row in rows(out)] == uris
    assert {row["outcome"] for row in rows(out)} == {"scored"}
    # At most the clip under way was lost.
    assert server.asked == {"a.mp4": 1, "b.mp4": 2, "c.mp4": 1}
    is_complete(out, 1)


def test_a_killed_worker_is_replaced_and_a_poisonous_file_gets_an_outcome(
    engine: str, clip: Path, weights: str, server: ClipServer, tmp_path: Path
) -> None:
    def once(pid: int) -> None:
        del server.before["once.mp4"]
        kill(pid)

    server.before |= {"once.mp4": once, "poison.mp4": kill}
    uris = [server.uri(f"{name}.mp4", clip) for name in ("a", "once", "b", "poison", "c", "d")]
    out = tmp_path / "out"
    command: tuple[object, ...] = (listed(tmp_path, uris), "--out", out, "--weights", weights, "--engine", engine)
    command += ("--workers", 1, "--processes", 1, "--part-files", 4)
    assert (done := call(*command)).exit_code == 3, done.output
    found = {row["uri"].rpartition("/")[2]: row for row in rows(out)}
    assert len(rows(out)) == len(found) == 6
    outcomes = {name: row["outcome"] for name, row in found.items()}
    assert outcomes.pop("poison.mp4") == "model_error"
    assert set(outcomes.values()) == {"scored"}
    assert "killed twice" in found["poison.mp4"]["error"]
    assert server.asked == {"a.mp4": 1, "b.mp4": 1, "c.mp4": 1, "d.mp4": 1, "once.mp4": 2, "poison.mp4": 2}
    is_complete(out, 2)

    server.before.clear()
    assert (done := call(*command, "--retry-failed")).exit_code == 0, done.output
    assert [row["uri"] for row in rows(out)] == uris
    assert (server.asked["poison.mp4"], server.asked["a.mp4"], server.asked["c.mp4"]) == (3, 1, 1)
    is_complete(out, 2)


def test_a_poisonous_file_is_found_without_the_journal_of_the_killed_worker(
    clip: Path, weights: str, server: ClipServer, tmp_path: Path
) -> None:
    """As where a part's next worker is on another machine, and the output behind a URI."""
    out = tmp_path / "out"

    def lose(pid: int) -> None:
        shutil.rmtree(out / "journal", ignore_errors=True)
        kill(pid)

    server.before["poison.mp4"] = lose
    uris = [server.uri(f"{name}.mp4", clip) for name in ("a", "poison", "b")]
    command = (listed(tmp_path, uris), "--out", out, "--weights", weights, "--workers", 2)
    assert (done := call(*command)).exit_code == 3, done.output
    assert [row["outcome"] for row in rows(out)] == ["scored", "model_error", "scored"]
    assert server.asked["poison.mp4"] == 2
    is_complete(out, 1)


def test_a_full_disk_is_named(clip: Path, weights: str, tmp_path: Path) -> None:
    """A limit on the size of files takes the part of the disk."""
    # Graph and compiled networks are made before it.
    assert call(listed(tmp_path, [clip]), "--out", tmp_path / "other", "--weights", weights).exit_code == 0
    (manifest := tmp_path / "clips.csv").write_text("uri,id\n" + "".join(f"{clip},id{n}\n" for n in range(24)))
    out = tmp_path / "out"
    command = (manifest, "--out", out, "--weights", weights, "--workers", 1)
    with driver(tmp_path, command, MAX_FILE="9000") as process:
        said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    assert f"Error: {out}/journal/part-0" in said.replace("\n", "")
    assert "File too large" in said
    # Decoders met the limit too: their files' records stay.
    assert call(*command).exit_code == 3
    assert {row["outcome"] for row in rows(out)} == {"scored", "over_limit"}
    assert [row["id"] for row in rows(out)] == [f"id{n}" for n in range(24)]
    is_complete(out, 2)


@pytest.mark.slow
def test_a_machine_of_a_cluster_vanishes(
    clip: Path, weights: str, server: ClipServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'unmask[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    from ray.cluster_utils import Cluster

    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    machine = cluster.add_node(num_cpus=1)

    asked, gone = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        del server.before["b.mp4"]
        asked.set()
        gone.wait()

    try:
        server.before["b.mp4"] = hold
        uris = [server.uri(f"{name}.mp4", clip) for name in "abc"]
        command: tuple[object, ...] = (listed(tmp_path, uris), "--out", tmp_path / "out", "--weights", weights)
        command += ("--engine", "ray", "--ray-address", cluster.address, "--processes", 1, "--workers", 1)
        with driver(tmp_path, command) as process:
            assert asked.wait(120)
            cluster.remove_node(machine, allow_graceful=False)
            cluster.add_node(num_cpus=1)
            gone.set()
            said, _ = process.communicate(timeout=100)
        assert process.returncode == 0, said
    finally:
        gone.set()
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)
    assert [(row["uri"], row["outcome"]) for row in rows(tmp_path / "out")] == [(uri, "scored") for uri in uris]
    assert server.asked == {"a.mp4": 1, "b.mp4": 2, "c.mp4": 1}
    is_complete(tmp_path / "out", 1)


def test_stores(clip: Path, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifest, clips and output behind URIs."""
    with ExitStack() as stack:
        server = stack.enter_context(s3_server())
        for name, value in server.options.items():
            monkeypatch.setenv(f"FSSPEC_S3_{name.upper()}", value)
        import fsspec

        stack.callback(fsspec.config.conf.pop, "s3", None)
        fsspec.config.conf["s3"] = server.options
        server.objects["clips/a.mp4"] = clip.read_bytes()
        server.objects["clips.csv"] = f"uri,id,size_bytes\ns3://{BUCKET}/clips/a.mp4,a,9\n".encode()
        command = (f"s3://{BUCKET}/clips.csv", "--out", f"s3://{BUCKET}/deep/out", "--weights", weights, "--workers", 1)
        for _ in range(2):
            assert (done := call(*command)).exit_code == 0, done.output
        assert {name.rpartition("/")[2] for name in server.objects if name.startswith("deep/out/")} == {
            "_SUCCESS", "failed.csv", "part-00000.done", "part-00000.parquet", "plan.json", "plan.parquet",
            "summary.json",
        }  # fmt: skip
        (path := tmp_path / "part.parquet").write_bytes(server.objects["deep/out/part-00000.parquet"])
        assert [(row["id"], row["outcome"]) for row in parquet.read_table(path).to_pylist()] == [("a", "scored")]
        assert [key for method, key, _ in server.requests if method == "GET"].count("clips/a.mp4") <= 2


def test_early_ends(clip: Path, weights: str, tmp_path: Path) -> None:
    manifest = listed(tmp_path, [clip])
    rest = ("--weights", weights)
    assert "row 2: names" in call(listed(tmp_path, [clip, clip]), "--out", tmp_path / "out", *rest).output
    listed(tmp_path, [clip])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").touch()
    for arguments, code, says in (
        ((manifest, "--out", tmp_path / "full"), 2, "is not empty"),
        ((manifest, "--out", "/proc/archive"), 1, "/proc/archive"),
        ((manifest, "--out", "https://example.org/out"), 2, "nothing can be written"),
        ((tmp_path / "absent.csv", "--out", tmp_path / "out"), 2, "No such file"),
        ((manifest, "--out", tmp_path / "out", "--ray-address", "auto"), 2, "--engine ray"),
        ((manifest, "--out", tmp_path / "out2", "--device", "quantum"), 2, "quantum"),
    ):
        done = call(*arguments, *rest)
        assert done.exit_code == code, done.output
        assert says in " ".join(done.output.split())
