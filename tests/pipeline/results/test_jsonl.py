"""Records in a file: valid for a reader whatever happens to the writer."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import Outcome, Verdict
from pipeline.results.jsonl import JsonlError, VerdictLog, read_verdicts
from tests.pipeline.records import record

A, B, C = (record(name) for name in ("a.mp4", "b.mp4", "c.mp4"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def written(path: Path, *verdicts: Verdict, keep: Callable[[Verdict], bool] | None = None) -> VerdictLog:
    with VerdictLog(path, keep=keep) as log:
        for verdict in verdicts:
            log.write(verdict)
    return log


def everything(verdict: Verdict) -> bool:
    return True


def test_records_come_back_in_order(path: Path) -> None:
    written(path, B, A)
    assert list(read_verdicts(path)) == [B, A]
    assert path.read_text() == B.to_json() + "\n" + A.to_json() + "\n"


def test_a_record_is_in_the_file_as_soon_as_it_is_written(path: Path) -> None:
    with VerdictLog(path) as log:
        log.write(A)
        assert list(read_verdicts(path)) == [A]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    written(tmp_path / "deep" / "down" / "out.jsonl", A)
    assert list(read_verdicts(tmp_path / "deep" / "down" / "out.jsonl")) == [A]


@pytest.mark.parametrize("keep", [None, everything])
def test_a_missing_file_is_created(path: Path, keep: Callable[[Verdict], bool] | None) -> None:
    assert written(path, A, keep=keep).kept == {}
    assert list(read_verdicts(path)) == [A]


def test_without_resume_the_file_is_overwritten(path: Path) -> None:
    written(path, A, B)
    written(path, C)
    assert list(read_verdicts(path)) == [C]


def test_resume_keeps_the_selected_records(path: Path) -> None:
    unavailable = record("d.mp4", Outcome.UNAVAILABLE, source_sha256=None)
    written(path, A, B, unavailable)
    log = written(path, C, keep=lambda verdict: verdict.source != "b.mp4")
    assert list(read_verdicts(path)) == [A, unavailable, C]
    assert {key: (kept.outcome, kept.source_sha256) for key, kept in log.kept.items()} == {
        A.id: (Outcome.SCORED, "1" * 64),
        unavailable.id: (Outcome.UNAVAILABLE, None),
    }


def test_a_new_record_replaces_the_kept_one(path: Path) -> None:
    written(path, A, B)
    again = record("a.mp4", probability=0.25)
    written(path, again, C, keep=everything)
    assert list(read_verdicts(path)) == [B, again, C]


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_an_incomplete_last_line_is_skipped(path: Path, cut: int) -> None:
    written(path, A, B)
    path.write_bytes(path.read_bytes()[:-cut])
    assert list(read_verdicts(path)) == [A]
    written(path, C, keep=everything)
    assert list(read_verdicts(path)) == [A, C]


@pytest.mark.parametrize(
    "line", [b"not json\n", b"{}\n", b"\n", b"\xff\n", A.to_json().replace('"schema":1', '"schema":2').encode() + b"\n"]
)
def test_a_file_with_an_invalid_line_is_not_changed(path: Path, line: bytes) -> None:
    path.write_bytes(A.to_json().encode() + b"\n" + line)
    before = path.read_bytes()
    with pytest.raises(JsonlError, match=r"out\.jsonl, line 2: not a verdict record"):
        VerdictLog(path, keep=everything)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == ["out.jsonl"]


def test_a_device_is_not_replaced_by_a_file() -> None:
    null = Path("/dev/null")
    written(null, A, keep=everything)
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        VerdictLog(tmp_path)


clips = st.lists(st.sampled_from([A, B, C]), unique_by=lambda verdict: verdict.id)


@given(first=clips, second=clips)
def test_after_two_runs_the_file_has_each_clip_once(
    tmp_path_factory: pytest.TempPathFactory, first: list[Verdict], second: list[Verdict]
) -> None:
    path = tmp_path_factory.mktemp("runs") / "out.jsonl"
    written(path, *first)
    written(path, *second, keep=everything)
    assert list(read_verdicts(path)) == [*(verdict for verdict in first if verdict not in second), *second]
