"""The service from the command line, with a real Kafka and a real Redis."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.services import free_port, kafka_jars
from models.zoo import default_detector, find_entry
from pipeline.contracts import Outcome, Topic, Verdict
from tests import media
from tests.conftest import required_service
from tests.e2e import chaos
from tests.e2e.service import UNMASK, Platform, WorkerProcess, until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with required_service():
        platform = Platform(tmp_path_factory.mktemp("platform"), options=("--workers", "2", "--detector", "mtcnn"))
        platform.__enter__()
    try:
        yield platform
    finally:
        platform.__exit__()


@pytest.fixture(scope="module")
def worker(platform: Platform) -> WorkerProcess:
    worker = platform.start_worker()
    until(lambda: worker.ready)
    return worker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with a face, one without, a broken file and a text file."""
    folder = tmp_path_factory.mktemp("folder")
    media.make_clip(folder / "face.mp4", seconds=2)
    media.make_clip(folder / "no_face.mp4", seconds=1, faces=0)
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    (folder / "notes.txt").write_text("no media")
    return folder


def test_a_folder_is_submitted_watched_and_read(platform: Platform, worker: WorkerProcess, folder: Path) -> None:
    done = platform.unmask("submit", str(folder), "--class", "archive", "--watch")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines() == [
        "3 sent, 0 known already",
        "skipped: 1 no media by content",
        "1 no_face, 1 scored, 1 undecodable",
    ]
    repeat = platform.unmask("submit", str(folder))
    assert (repeat.returncode, repeat.stdout.splitlines()[0]) == (0, "0 sent, 3 known already")
    records = {
        (message.key or b"").decode(): message.value for found in platform.records().values() for message in found
    }
    assert platform.stored(sorted(records)) == records

    exported = platform.unmask("results", "export")
    verdicts = [Verdict.model_validate_json(line) for line in exported.stdout.splitlines()]
    assert {Path(v.source).name: v.outcome for v in verdicts} == {
        "face.mp4": Outcome.SCORED,
        "no_face.mp4": Outcome.NO_FACE,
        "broken.mp4": Outcome.UNDECODABLE,
    }
    face = next(v for v in verdicts if v.outcome is Outcome.SCORED)
    shown = platform.unmask("results", "show", face.id)
    assert shown.returncode == 0
    assert f"P(fake) {face.probability:.3f}" in shown.stdout
    assert platform.unmask("results", "show", face.id, "--json", "-").stdout.encode().strip() == records[face.id]
    assert platform.unmask("results", "show", "unknown-id").returncode == 1


def test_results_tail_prints_verdicts(platform: Platform, worker: WorkerProcess) -> None:
    known = set(platform.records())
    with subprocess.Popen(
        [UNMASK, "results", "tail", "--from-beginning"],
        env={**os.environ, **platform.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as tail:
        assert tail.stdout is not None
        lines = [tail.stdout.readline() for _ in known]
        tail.send_signal(signal.SIGINT)
        assert tail.wait(60) == 130
    assert {line.split()[0] for line in lines} == known
    assert any("no_face" in line for line in lines)


def test_health_and_metrics_report_the_worker(worker: WorkerProcess) -> None:
    assert worker.get("/healthz") == (200, '{"alive": true}\n')
    status, body = worker.get("/readyz")
    weights = find_entry(default_detector()).sha256
    ready = {"ready": True, "model": "ok", "kafka": "ok", "redis": "ok", "messages": "ok", "weights": weights}
    assert (status, json.loads(body)) == (200, ready)
    assert worker.get("/")[0] == 404
    _, text = worker.get("/metrics")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert values['unmask_clips_total{outcome="scored",source_class="archive"}'] == "1.0"
    # Two seconds with a face and one without; the broken file has none.
    assert float(values['unmask_video_seconds_total{source_class="archive"}']) == pytest.approx(3.0, abs=0.1)
    assert float(values["unmask_engine_crops_total"]) == float(values["unmask_batch_crops_sum"]) >= 4
    assert float(values['unmask_stage_seconds_count{stage="faces"}']) >= 2
    assert values['unmask_lag_messages{topic="unmask.archive"}'] == "0.0"


def test_the_log_has_each_clip_as_json(platform: Platform, worker: WorkerProcess) -> None:
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    verdicts = [line for line in lines if line["event"] == "verdict"]
    assert {line["outcome"] for line in verdicts} == {"scored", "no_face", "undecodable"}
    assert {"clip_id", "topic", "partition", "offset", "attempt", "level", "timestamp"} <= set(verdicts[0])
    assert set(platform.records()) == {line["clip_id"] for line in verdicts}


@pytest.mark.usefixtures("worker")
def test_a_file_is_published_as_a_live_stream(platform: Platform, folder: Path) -> None:
    sent = platform.unmask("stream", "publish", str(folder / "face.mp4"), "--id", "live-1", "--segment-s", "1")
    assert (sent.returncode, sent.stdout) == (0, "live-1: 2 segments, 0 of them re-encoded, 2.0 s\n")
    until(lambda: platform.stored(["live-1"])["live-1"])
    shown = platform.unmask("stream", "show", "live-1")
    assert "ended" in shown.stdout
    assert "segments: 2 looked at, 0 of them late, 0 missing, 0 duplicated, 0 shed, 0 failed" in shown.stdout
    assert "person 0: " in shown.stdout
    assert platform.unmask("stream", "show", "unknown-id").returncode == 1
    failed = platform.unmask("stream", "publish", str(folder / "broken.mp4"))
    assert failed.returncode == 2
    assert "broken.mp4" in failed.stderr


@pytest.mark.usefixtures("worker")
def test_the_java_client_submits_and_reads(platform: Platform, folder: Path) -> None:
    java = shutil.which("java")
    assert java is not None, "deploy/local/packages.sh installs it"
    done = subprocess.run(
        [
            java, "-cp", f"{kafka_jars()}/*", str(ROOT / "examples/java/UnmaskClient.java"),
            "--kafka", platform.kafka.bootstrap, "--redis", platform.redis.url, str(folder / "face.mp4"),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    verdict = Verdict.model_validate_json(done.stdout)
    assert (verdict.outcome, verdict.source) == (Outcome.SCORED, str(folder / "face.mp4"))


def test_restore_brings_back_what_redis_lost(platform: Platform, worker: WorkerProcess) -> None:
    ids = sorted(platform.records())
    before = platform.stored(ids)
    with platform.client() as client:
        client.flushall()
    done = platform.unmask("results", "restore")
    assert (done.returncode, done.stdout) == (0, f"{len(ids)} restored, 0 already present, 0 invalid\n")
    assert platform.stored(ids) == before


def test_a_worker_is_not_ready_without_redis_and_loses_nothing(
    platform: Platform, worker: WorkerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "late.mp4"
    media.make_clip(path, seconds=1, seed=3)
    sent = platform.unmask("submit", str(path))
    clip_id = sent.stdout.splitlines()[-1].removeprefix("id: ")
    platform.redis.kill()
    assert worker.get("/readyz")[0] == 503
    assert worker.get("/healthz")[0] == 200
    assert platform.unmask("submit", str(path)).returncode == 1
    platform.redis.start()
    until(lambda: platform.stored([clip_id])[clip_id])
    until(lambda: worker.ready)


def test_a_worker_exits_on_sigterm(platform: Platform, worker: WorkerProcess) -> None:
    assert worker.leave() == 0
    assert platform.uncommitted() == 0


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"UNMASK_REDIS": ""}, "UNMASK_REDIS not set"),
        ({"UNMASK_URI_ALLOW": "file://srv"}, "expected a scheme"),
        ({"UNMASK_URI_ALLOW": "file"}, "expected a folder, such as /srv/videos"),
        ({"UNMASK_MAX_ATTEMPTS": "0"}, "UNMASK_MAX_ATTEMPTS: Input should be greater than"),
        ({"UNMASK_WEIGHTS": "nothing-of-that-name"}, "nothing-of-that-name"),
    ],
)
def test_a_worker_names_bad_settings(environment: dict[str, str], reason: str) -> None:
    defaults = {
        "UNMASK_KAFKA": f"127.0.0.1:{free_port()}",
        "UNMASK_REDIS": "redis://127.0.0.1:1/0",
        "UNMASK_HTTP_PORT": "0",
        "UNMASK_URI_ALLOW": "/",
    }
    done = subprocess.run(
        [UNMASK, "worker"], env={**defaults, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_worker_wants_to_know_what_it_may_read() -> None:
    settings = {"UNMASK_KAFKA": "127.0.0.1:1", "UNMASK_REDIS": "redis://127.0.0.1:1/0"}
    done = subprocess.run([UNMASK, "worker"], env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "UNMASK_URI_ALLOW=/srv/videos," in done.stderr


def test_a_command_names_the_missing_setting() -> None:
    done = subprocess.run([UNMASK, "dead", "list"], env={}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "UNMASK_KAFKA" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(840)  # a disk that is slow to flush holds Kafka up for minutes
def test_no_verdict_is_lost_or_doubled_during_failures(tmp_path: Path) -> None:
    with required_service():
        kafka_jars()
    plan = chaos.Plan(clips=16, kills=2, kafka_restarts=1, redis_restarts=1, seed=1)
    found = chaos.run(tmp_path, plan)
    assert (found.verdicts, found.outcomes) == (16, {"scored": 16})
    assert (found.with_two_records, found.unequal_to_redis) == (0, 0)
    assert found.offsets_looked_at > 0
    assert (found.offsets_ahead, found.not_committed) == (0, 0)
    assert found.restored_equal == 16
    assert found.dead_letters == 0


def test_dead_letters_are_listed_shown_and_requeued(platform: Platform) -> None:
    from pipeline.transport.kafka import Publisher

    with Publisher(platform.kafka.bootstrap) as publisher:
        why = "no schema version \x1b[2J"
        publisher.dead(Topic.VIDEOS, b"x\x1b[31m", b"{}", (), error=why, stage="parse", attempts=0)
    listed = platform.unmask("dead", "list")
    (line,) = listed.stdout.splitlines()
    place = line.split()[0]
    assert "parse" in line
    assert r"x\u001b[31m  no schema version \u001b[2J" in line
    shown = platform.unmask("dead", "show", place)
    assert shown.stdout.splitlines()[-1] == "{}"
    assert platform.unmask("dead", "show", "0:999").returncode == 1
    sent = platform.unmask("dead", "requeue", "--all")
    assert sent.returncode == 3
    assert "still no task" in sent.stderr
    assert platform.unmask("dead", "requeue").returncode == 2


def test_a_name_that_no_message_can_hold_does_not_stop_the_others(
    platform: Platform, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "face.mp4", tmp_path / "good.mp4")
    (tmp_path / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no video")
    done = platform.unmask("submit", str(tmp_path))
    assert done.returncode == 3
    assert done.stdout.startswith("1 sent, 0 known already")
    assert "not UTF-8" in done.stderr
