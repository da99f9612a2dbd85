"""Messages as other programs write them: accepted, or refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts import SourceClass, Topic, clip_key, frames_key
from pipeline.transport.messages import (
    MAX_SEGMENT_BYTES,
    MAX_SEQUENCE,
    MAX_STREAM_S,
    ContentType,
    ContractError,
    Segment,
    VideoTask,
)

# Written out by hand, as docs/contracts.md shows it.
TASK: dict[str, Any] = {
    "schema": 1,
    "video_id": "upload-17",
    "uri": "file:///srv/videos/a.mp4",
    "source_class": "upload",
    "submitted_at": 1795500000.25,
}
HEADERS: dict[str, bytes | None] = {
    "schema": b"1",
    "stream_id": b"cam:3",
    "sequence": b"0",
    "start_s": b"0.0",
    "final": b"0",
    "content_type": b"video/mp4",
}
ids = st.from_regex(r"[A-Za-z0-9._:-]{1,128}", fullmatch=True).filter(lambda text: not text.endswith(":frames"))


def parse(changes: dict[str, Any], key: bytes | None = b"upload-17") -> VideoTask:
    fields = {name: value for name, value in {**TASK, **changes}.items() if value is not ...}
    return VideoTask.parse(json.dumps(fields).encode(), key)


def segment(changes: dict[str, Any], value: bytes | None = b"media", key: bytes = b"cam:3") -> Segment:
    headers = {name: text for name, text in {**HEADERS, **changes}.items() if text is not ...}
    return Segment.parse(list(headers.items()), key, value)


def test_the_smallest_task_is_accepted() -> None:
    task = parse({})
    assert (task.video_id, task.uri, task.sampling) == ("upload-17", "file:///srv/videos/a.mp4", None)
    assert task.source_class.topic is Topic.VIDEOS
    assert SourceClass.ARCHIVE.topic is Topic.ARCHIVE


def test_unknown_fields_are_ignored() -> None:
    assert parse({"priority": 3, "sampling": "frames=20"}).sampling == "frames=20"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema version 2: expected 1"),
        ({"schema": "1"}, "schema version '1'"),
        ({"schema": True}, "schema version True"),
        ({"schema": ...}, "no schema version"),
        ({"uri": "videos/a.mp4"}, "uri.*or an absolute path"),
        ({"uri": "file:/srv/a.mp4"}, "uri.*lower case and ://"),
        ({"uri": "FILE:///srv/a.mp4"}, "uri.*lower case and ://"),
        ({"uri": "/srv/a\0b.mp4"}, "uri.*null character"),
        ({"uri": ""}, "uri"),
        ({"source_class": "live"}, "source_class"),
        ({"sampling": "some"}, "sampling.*fps=F, frames=N"),
        ({"start_s": -1}, "start_s"),
        ({"end_s": 0}, "end_s"),
        ({"start_s": 2, "end_s": 2}, "end_s must be after start_s"),
        ({"start_s": 1e300}, "start_s"),
        ({"start_s": 1, "part": {"index": 0, "count": 1, "start_s": 0}}, "not both"),
        ({"submitted_at": "soon"}, "submitted_at"),
        ({"submitted_at": ...}, "submitted_at"),
        ({"video_id": "a b"}, "video_id"),
        ({"video_id": "x:frames"}, "must not end in ':frames'"),
        ({"video_id": "other"}, "key b'upload-17': expected the video_id 'other'"),
    ],
)
def test_a_task_that_violates_the_contract_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse(changes)


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b"17", b'{"schema": 1', b"[" * 100_000])
def test_a_value_that_is_not_a_json_object_is_refused(value: bytes | None) -> None:
    with pytest.raises(ContractError, match="JSON"):
        VideoTask.parse(value, b"upload-17")


def test_a_task_needs_its_key() -> None:
    with pytest.raises(ContractError, match=r"key \(none\)"):
        parse({}, key=None)


@given(value=st.binary(max_size=200), key=st.none() | st.binary(max_size=20))
def test_random_bytes_are_refused(value: bytes, key: bytes | None) -> None:
    with pytest.raises(ContractError):
        VideoTask.parse(value, key)
    with pytest.raises(ContractError):
        Segment.parse([("schema", value), ("sequence", key)], key, value)


@given(
    video_id=ids,
    submitted_at=st.floats(0, 1e11),
    sampling=st.sampled_from([None, "fps=2", "keyframes"]),
    window=st.sampled_from([(None, None), (1.5, None), (None, 0.1), (0.0, 3e8)]),
)
def test_a_task_comes_back_as_it_was(
    video_id: str, submitted_at: float, sampling: str | None, window: tuple[float | None, float | None]
) -> None:
    task = VideoTask(
        video_id=video_id,
        uri="/a.mp4",
        source_class=SourceClass.ARCHIVE,
        submitted_at=submitted_at,
        sampling=sampling,
        start_s=window[0],
        end_s=window[1],
    )
    assert VideoTask.parse(task.to_json(), video_id.encode()) == task


@given(first=ids, second=ids)
def test_no_two_tasks_share_a_key_in_redis(first: str, second: str) -> None:
    assert clip_key(first) != frames_key(second)


def test_a_segment_is_read_from_its_headers() -> None:
    assert segment({"trace": b"\xff"}) == Segment(
        stream_id="cam:3", sequence=0, start_s=0.0, final=False, content_type=ContentType.MP4
    )
    assert segment({"uri": b"file:///a.ts", "final": b"1"}, value=b"").uri == "file:///a.ts"


@pytest.mark.parametrize(
    ("changes", "value", "message"),
    [
        ({"schema": b"2"}, b"media", "schema version 2"),
        ({"schema": b"one"}, b"media", "schema version 'one'"),
        ({"schema": ...}, b"media", "no schema version"),
        ({"sequence": b"-1"}, b"media", "sequence"),
        ({"sequence": ...}, b"media", "sequence"),
        ({"start_s": b"nan"}, b"media", "start_s"),
        ({"final": b"yes"}, b"media", "header final: expected 0 or 1"),
        ({"content_type": b"audio/mp4"}, b"media", "content_type"),
        ({"stream_id": b"\xff"}, b"media", "stream_id: not UTF-8"),
        ({"stream_id": b"cam:4"}, b"media", "key"),
        ({}, b"", "media bytes, or an empty value and a uri"),
        ({"uri": b"file:///a.ts"}, b"media", "media bytes, or an empty value and a uri"),
        ({}, bytes(MAX_SEGMENT_BYTES + 1), "at most 900000"),
    ],
)
def test_a_segment_that_violates_the_contract_is_refused(changes: dict[str, Any], value: bytes, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        segment(changes, value)


def test_a_repeated_header_is_refused() -> None:
    with pytest.raises(ContractError, match="given twice"):
        Segment.parse([*HEADERS.items(), ("sequence", b"1")], b"cam:3", b"media")


@given(stream_id=ids, sequence=st.integers(0, MAX_SEQUENCE), start_s=st.floats(0, MAX_STREAM_S), final=st.booleans())
def test_a_segment_comes_back_as_it_was(stream_id: str, sequence: int, start_s: float, final: bool) -> None:
    sent = Segment(
        stream_id=stream_id, sequence=sequence, start_s=start_s, final=final, content_type=ContentType.MPEG_TS
    )
    assert Segment.parse(sent.to_headers(), stream_id.encode(), b"media") == sent
