"""Which worker gets which part, and when killed workers end an archive; and journals of killed tries."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline.archive.dispatch import Died, EngineError, Event, Finished, Ready, Recorded, WorkerError, dispatch
from pipeline.archive.journal import Journal
from pipeline.archive.manifest import Row
from pipeline.archive.output import NotWrittenError
from pipeline.archive.part import Failed, Job
from pipeline.archive.table import Marker
from tests.pipeline.records import PROVENANCE, record


@dataclass
class ScriptedPool:
    """Workers that die as a script says: for each part, after how many files in each try; None: they finish it."""

    script: dict[int, list[int | None]]
    starts: list[bool] = field(default_factory=list)
    given: list[tuple[int, int]] = field(default_factory=list)
    most: int = 0
    _busy: int = 0
    _numbers: int = 0
    _events: deque[Event] = field(default_factory=deque)

    def start(self) -> int:
        self._numbers += 1
        works = self.starts.pop(0) if self.starts else True
        self._events.append(Ready(self._numbers, PROVENANCE) if works else Died(self._numbers, "no memory"))
        return self._numbers

    def assign(self, worker: int, job: Job) -> None:
        self.given.append((job.part, job.deaths))
        self._busy += 1
        self.most = max(self.most, self._busy)
        tries = self.script.get(job.part) or [None]
        files = tries.pop(0)
        if files is None:
            marker = Marker(part=job.part, rows=1, sha256="", size_bytes=0, outcomes={}, labels={})
            self._events += [Recorded(worker, 1), Finished(worker, marker)]
        elif files < 0:
            self._events.append(Finished(worker, Failed("disk full", 1)))
        else:
            self._events += [*[Recorded(worker, 1)] * files, Died(worker, "killed")]

    def events(self) -> Sequence[Event]:
        event = self._events.popleft()
        self._busy -= isinstance(event, Died | Finished) and self._busy > 0
        return [event]


def dispatched(pool: ScriptedPool, parts: Sequence[int], workers: int) -> tuple[list[int], int]:
    """Parts in the order in which they were done, and files judged."""
    done: list[int] = []
    files = 0

    def recorded(count: int) -> None:
        nonlocal files
        files += count

    dispatch(
        pool,
        parts,
        workers=workers,
        job_of=lambda part, deaths: Job(part, (Row(1, "a", "a", 0),), deaths),
        ready=lambda provenance: None,
        recorded=recorded,
        done=lambda marker: done.append(marker.part),
    )
    return done, files


def test_parts_of_killed_workers_are_given_out_again() -> None:
    pool = ScriptedPool({3: [0, 2, None], 5: [1, None]}, starts=[True, False, True])
    done, files = dispatched(pool, [3, 1, 5, 2], workers=2)
    assert sorted(done) == [1, 2, 3, 5]
    assert files == 4 + 2 + 1
    assert pool.given.count((3, 0)) == pool.given.count((3, 1)) == pool.given.count((3, 2)) == 1
    assert pool.most <= 2
    # The largest first.
    assert pool.given[0] == (3, 0)


def test_a_part_that_ends_all_its_workers_ends_the_archive() -> None:
    with pytest.raises(EngineError, match="part 7: 6 workers in a row"):
        dispatched(ScriptedPool({7: [1, *[0] * 6]}), [7], workers=3)
    # Poisonous files, each of which takes two workers, do not.
    done, _ = dispatched(ScriptedPool({7: [0, 1] * 9}), [7], workers=1)
    assert done == [7]


def test_workers_that_never_start_end_the_archive() -> None:
    with pytest.raises(EngineError, match="before they are ready; the last one: no memory"):
        dispatched(ScriptedPool({}, starts=[False] * 10), [1, 2], workers=2)


def test_a_full_disk_ends_the_archive() -> None:
    with pytest.raises(WorkerError, match="disk full") as error:
        dispatched(ScriptedPool({2: [-1]}), [1, 2], workers=1)
    assert error.value.exit_code == 1


def test_a_journal_knows_what_killed_tries_had_found(tmp_path: Path) -> None:
    records = {row: record(f"clip{row}").to_json() for row in (1, 2, 3)}
    killed = Journal(tmp_path, 4)
    for row in (1, 2, 3):
        killed.began(row)
    killed.add(1, records[1])
    with Journal(tmp_path, 4) as ended:
        assert (len(ended), ended.suspects, 1 in ended, 2 in ended) == (1, {2, 3}, True, False)
        ended.began(5)
        ended.add(2, records[2])
        ended.ended()
    # The first one still writes, and its last line is not complete.
    killed.add(3, records[3])
    path = next(path for path in tmp_path.iterdir() if records[3][:40].replace('"', '\\"') in path.read_text())
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "part-00004.00000000.jsonl").write_bytes(b'\xff\n{}\n[]\n{"row": 9, "record": "{}"}\n')
    with Journal(tmp_path, 4) as last, Journal(tmp_path, 5) as other:
        assert [last.record(row) for row in (1, 2)] == [records[1], records[2]]
        assert (len(last), last.suspects, len(other)) == (2, {3}, 0)
        last.delete()
        assert [path.name[:10] for path in tmp_path.iterdir()] == ["part-00005"]


def test_a_journal_that_cannot_be_written_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match=r"file/part-00001\..*cannot be written"):
        Journal(tmp_path / "file", 1)
