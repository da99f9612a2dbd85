"""A rolling upgrade: workers of an earlier version and of this one in one group, and what each reads of the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts import Outcome, Topic, Verdict, parts_key
from pipeline.live.cutter import cut
from pipeline.live.state import StreamState
from pipeline.live.store import StreamStore
from pipeline.transport.history import read_topic
from pipeline.transport.kafka import Publisher
from pipeline.transport.messages import ContentType, Segment, VideoTask
from tests import media
from tests.conftest import required_service
from tests.e2e.earlier import EARLIER, Earlier, NoHistoryError, build, has_history
from tests.e2e.service import UNMASK, OffsetWatch, Platform, WorkerProcess, copies_of, done_count, until

pytestmark = pytest.mark.slow

SHORT, LONG = 56, 4
# Of a long clip.
PARTS = 3
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Earlier:
    try:
        return build(EARLIER, tmp_path_factory.mktemp("earlier"))
    except NoHistoryError as error:
        if os.environ.get("CI") == "true" and has_history():
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with required_service():
        platform = Platform(
            tmp_path_factory.mktemp("mixed"), options=("--workers", "2", "--fps", "2"), UNMASK_SPLIT_S="4"
        )
        platform.__enter__()
    try:
        yield platform
    finally:
        platform.__exit__()


@dataclass(frozen=True)
class Upgrade:
    """A group of both versions after its work.

    Attributes:
        ids: of all clips.
        stored: their records in Redis.
        published: those on the topic.
        ahead: offsets of short clips that were committed before their verdict.
        not_committed: tasks behind the committed offsets at the end.
        dead: dead letters.
        attempts: short clips by number of tries; the killed worker's clips have two.
        judged: log entries of each version: how many verdicts and parts it has.
        exit_code: of the worker that got SIGTERM.
    """

    ids: list[str]
    stored: dict[str, bytes | None]
    published: dict[str, list[bytes]]
    ahead: list[Any]
    not_committed: int
    dead: int
    attempts: Counter[int]
    judged: dict[str, Counter[str]]
    exit_code: int


def logged(workers: list[WorkerProcess]) -> Counter[str]:
    lines = [line for worker in workers for line in worker.log.read_text().splitlines()]
    return Counter(json.loads(line)["event"] for line in lines if line.startswith("{"))


@pytest.fixture(scope="module")
def upgrade(platform: Platform, earlier: Earlier, tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    """60 clips; in the middle one worker of each version goes: one is stopped, one is killed."""
    folder = tmp_path_factory.mktemp("clips")
    short = [folder / f"short-{seed}.mp4" for seed in range(4)]
    for seed, path in enumerate(short):
        media.make_clip(path, seconds=1, seed=seed)
    media.make_clip(folder / "long.mp4", seconds=12, size=(480, 270), face_px=(80, 90), seed=9)
    sent = folder / "sent"
    clips = [*copies_of(short, SHORT, sent / "short"), *copies_of([folder / "long.mp4"], LONG, sent / "long")]
    old, new = platform.start_worker(unmask=earlier.unmask), platform.start_worker()
    for worker in (old, new):
        until(lambda worker=worker: worker.ready)
    versions = {"earlier": [old], "this": [new]}
    done = platform.unmask("submit", str(sent), "--recursive")
    assert done.returncode == 0, done.stderr
    tasks = platform.tasks()
    ids = sorted(set(tasks.values()))
    assert len(ids) == len(clips) == SHORT + LONG
    # A long clip's own message ends when its parts are sent.
    sent_tasks = [VideoTask.parse(m.value, m.key) for m in read_topic(platform.kafka.bootstrap, Topic.VIDEOS)]
    short_ids = {task.video_id for task in sent_tasks if "/short/" in task.uri}
    assert len(short_ids) == SHORT
    watch = OffsetWatch(platform, {place: clip for place, clip in tasks.items() if clip in short_ids})

    until(lambda: done_count(platform, ids) >= len(ids) // 4, PATIENCE_S)
    exit_code = old.leave()
    platform.workers.remove(old)
    versions["earlier"].append(platform.start_worker(unmask=earlier.unmask))
    until(lambda: done_count(platform, ids) >= len(ids) // 2, PATIENCE_S)
    new.kill()
    platform.workers.remove(new)
    versions["this"].append(platform.start_worker())

    until(lambda: done_count(platform, ids) == len(ids), PATIENCE_S)
    until(lambda: platform.uncommitted() == 0, PATIENCE_S)
    watch.end()
    with platform.client() as client:
        until(lambda: not any(client.exists(parts_key(clip)) for clip in ids))
    stored = platform.stored(ids)
    published = {key: [message.value or b"" for message in found] for key, found in platform.records().items()}
    return Upgrade(
        ids=ids,
        stored=stored,
        published=published,
        ahead=watch.ahead,
        not_committed=platform.uncommitted(),
        dead=sum(1 for _ in read_topic(platform.kafka.bootstrap, Topic.DEAD)),
        attempts=platform.attempts(sorted(short_ids)),
        judged={name: logged(workers) for name, workers in versions.items()},
        exit_code=exit_code,
    )


def test_nothing_is_lost_and_nothing_is_judged_twice(upgrade: Upgrade) -> None:
    assert set(upgrade.published) == set(upgrade.ids)
    # What the killed worker had not committed yet comes again: from Redis, with the same bytes.
    assert {key: set(found) for key, found in upgrade.published.items()} == {
        key: {record} for key, record in upgrade.stored.items()
    }
    assert set(upgrade.attempts) <= {1, 2}
    assert (upgrade.ahead, upgrade.not_committed, upgrade.dead, upgrade.exit_code) == ([], 0, 0, 0)
    outcomes = Counter(Verdict.model_validate_json(record or b"").outcome for record in upgrade.stored.values())
    assert outcomes == {Outcome.SCORED: SHORT + LONG}


def test_both_versions_judge(upgrade: Upgrade) -> None:
    assert upgrade.judged["earlier"]["verdict"] >= 1
    assert upgrade.judged["this"]["verdict"] >= 1
    parts = {name: found["part"] for name, found in upgrade.judged.items()}
    assert min(parts.values()) >= 1
    assert sum(parts.values()) >= PARTS * LONG


def test_long_clips_have_equal_verdicts(upgrade: Upgrade) -> None:
    """Their pictures are equal, only the bytes of their files differ: which version judged a part does not matter."""
    found = [Verdict.model_validate_json(record or b"") for record in upgrade.stored.values()]
    long = [verdict for verdict in found if "/long/" in verdict.source]
    assert len(long) == LONG
    assert len({verdict.probability for verdict in long}) == 1
    assert len({(verdict.frames_sampled, verdict.frames_scored, len(verdict.people)) for verdict in long}) == 1
    assert {verdict.frames_sampled for verdict in long} == {24}


def test_the_earlier_version_reads_all_records(upgrade: Upgrade, earlier: Earlier) -> None:
    code = (
        "import sys; from pipeline.contracts import Verdict\n"
        "for line in sys.stdin:\n    print(Verdict.model_validate_json(line).to_json())"
    )
    records = sorted(record.decode() for record in upgrade.stored.values() if record)
    assert earlier.python(code, "\n".join(records)).splitlines() == records
    # And this one. Fields that were added within a schema version would be missing in the other direction only.
    assert [Verdict.model_validate_json(record).to_json() for record in records] == records


def test_a_stream_goes_on_from_version_to_version_and_back(
    platform: Platform, upgrade: Upgrade, earlier: Earlier, tmp_path: Path
) -> None:
    """Its segments are looked at by the earlier version, by this one, and by the earlier one after a rollback."""
    for worker in platform.workers:
        worker.leave()
    platform.workers.clear()
    media.make_clip(tmp_path / "stream.mp4", seconds=6, seed=3)
    pieces = list(cut(str(tmp_path / "stream.mp4"), segment_s=1.0))
    assert len(pieces) == 6
    last = len(pieces) - 1

    def state() -> StreamState | None:
        with platform.client() as client:
            return StreamStore(client, ttl_s=3600).load("rolling")

    with Publisher(platform.kafka.bootstrap) as publisher:
        for start, unmask in ((0, earlier.unmask), (2, None), (4, earlier.unmask)):
            worker = platform.start_worker(unmask=unmask) if unmask else platform.start_worker()
            until(lambda worker=worker: worker.ready)
            for number in range(start, start + 2):
                segment = Segment(
                    stream_id="rolling",
                    sequence=number,
                    start_s=pieces[number].start_s,
                    final=number == last,
                    content_type=ContentType.MPEG_TS,
                )
                publisher.segment(segment, pieces[number].media).wait()
                until(lambda number=number: (found := state()) is not None and found.next_sequence == number + 1)
            if start < 4:
                assert worker.leave() == 0
                platform.workers.remove(worker)
    ended = state()
    assert ended is not None
    assert (ended.segments, ended.missing, ended.failed, ended.shed) == (6, 0, 0, 0)
    assert ended.closed
    (record,) = until(lambda: platform.records().get("rolling"))
    verdict = Verdict.model_validate_json(record.value or b"")
    assert verdict.outcome is Outcome.SCORED
    # One person: what each version knew of the track went on to the next.
    assert [person.track for person in verdict.people] == [0]


def test_a_service_is_updated_and_rolled_back_to_its_backup(earlier: Earlier, tmp_path: Path) -> None:
    """The tables go forward only: the earlier version refuses them, and reads the copy from before the update."""
    folder, before = tmp_path / "service", tmp_path / "before"

    def keys(command: str | Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(command), "keys", *arguments, "--folder", str(where)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    folder.mkdir()
    code = (
        "import sys; from pathlib import Path; from web.database import Database\n"
        "Database(Path(sys.stdin.read())).close()"
    )
    earlier.python(code, str(folder / "unmask.sqlite3"))
    assert keys(earlier.unmask, folder, "create", "anna", "--role", "review").returncode == 0
    shutil.copytree(folder, before)
    assert "anna" in keys(UNMASK, folder, "list").stdout
    refused = keys(earlier.unmask, folder, "list")
    assert refused.returncode != 0
    assert "written by a later version of Unmask" in refused.stderr
    assert "anna" in keys(earlier.unmask, before, "list").stdout


def test_a_commit_that_is_not_here_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoHistoryError, match="git fetch --unshallow"):
        build("0" * 40, tmp_path)
