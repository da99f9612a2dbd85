"""A compromised child may send anything; the reader must handle it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.video.clip import DecodeError, Limits
from pipeline.video.clip_reader import ClipReader
from pipeline.video.sampling import Fps
from pipeline.video.wire import MAX_MESSAGE_BYTES, REPORT, Channel

INFO = {
    "type": "info", "duration_s": 1.0, "width": 4, "height": 2, "fps": 25.0, "codec": "h264", "container": "mov",
    "pixel_format": "yuv420p", "rotation": 0, "decoder": "libavcodec 62 h264", "pixel_aspect": 1.0,
    "streams": 1,
}  # fmt: skip
END = {"type": "end", "decoded": 7, "corrupt": 1, "damaged": [], "truncated": False}
RING = {"type": "ring", "slot_bytes": 24}
FRAME = {"type": "frame", "slot": 0, "width": 4, "height": 2, "index": 0, "t_s": 0.0}
LIMITS = Limits(max_pixels=100)


class FakeChild:
    """A reader whose peer is under the test's control."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        reading, self.report = os.pipe()
        self.process = subprocess.Popen(["sleep", "600"])
        self.peer = Channel(theirs)
        self.socket = theirs
        self.reader = ClipReader(Channel(ours), FileIO(reading), self.process.pid, "clip", LIMITS)
        self.source = os.open(os.devnull, os.O_RDONLY)

    def says(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.peer.send(message)

    def start(self) -> None:
        self.reader.start(self.source, Fps(), 1)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.report)
        os.close(self.source)
        self.reader.close()
        self.peer.close()


@pytest.fixture
def child() -> Iterator[FakeChild]:
    child = FakeChild()
    yield child
    child.end()


def assert_distrusted(child: FakeChild, error: DecodeError) -> None:
    assert error.outcome == "undecodable"
    assert "invalid message" in str(error)
    assert child.process.wait(10) == -signal.SIGKILL


def test_a_valid_child_is_accepted(child: FakeChild) -> None:
    child.says(INFO, {"type": "progress"}, RING, FRAME, {**END, "damaged": [[0.5, 1], [2, 3.5]], "truncated": True})
    child.start()
    frame = next(child.reader)
    assert frame.image.shape == (2, 4, 3)
    assert list(child.reader) == []
    info = child.reader.info
    assert (info.frames_decoded, info.frames_corrupt) == (7, 1)
    assert (info.damaged, info.truncated) == (((0.5, 1.0), (2.0, 3.5)), True)


@pytest.mark.parametrize(
    "info",
    [
        {"type": "nonsense"}, {"kind": "frame"}, {"type": ["frame"]}, {"type": "info"},
        {**INFO, "width": 0}, {**INFO, "width": 11, "height": 10}, {**INFO, "width": 4.0}, {**INFO, "rotation": 45},
        {**INFO, "fps": float("nan")}, {**INFO, "fps": float("inf")}, {**INFO, "fps": -1}, {**INFO, "fps": 10**400},
        {**INFO, "codec": 5}, {**INFO, "duration_s": True}, {**INFO, "pixel_aspect": 0}, {**INFO, "pixel_aspect": 5},
    ],
)  # fmt: skip
def test_invalid_info_ends_the_clip(child: FakeChild, info: dict[str, Any]) -> None:
    child.says(info)
    with pytest.raises(DecodeError) as error:
        child.start()
    assert_distrusted(child, error.value)


@pytest.mark.parametrize(
    "messages",
    [
        [FRAME],
        [RING, {**FRAME, "slot": 4}], [RING, {**FRAME, "slot": -1}], [RING, {**FRAME, "slot": True}],
        [RING, {**FRAME, "width": 5}], [RING, {**FRAME, "height": 2**62}], [RING, {**FRAME, "index": -1}],
        [RING, {**FRAME, "t_s": float("nan")}], [RING, {**FRAME, "t_s": None}],
        [{**RING, "slot_bytes": 301}], [{**RING, "slot_bytes": 0}], [RING, RING],
        [{**END, "decoded": -1}], [{"type": "end"}], [INFO], [{**END, "damaged": None}], [{**END, "damaged": [[1]]}],
        [{**END, "damaged": [[2, 1]]}], [{**END, "damaged": [[0, 2], [1, 3]]}], [{**END, "damaged": ["ab"]}],
        [{**END, "damaged": [[n, n + 1] for n in range(101)]}], [{**END, "damaged": [[0, float("nan")]]}],
    ],
)  # fmt: skip
def test_invalid_frames_end_the_clip(child: FakeChild, messages: list[dict[str, Any]]) -> None:
    child.says(INFO, *messages)
    child.start()
    with pytest.raises(DecodeError) as error:
        next(child.reader)
    assert_distrusted(child, error.value)


@pytest.mark.parametrize(
    "noise",
    [b"\xff\xff\xff\xff", struct.pack("!I", MAX_MESSAGE_BYTES + 1), struct.pack("!I", 3) + b"{}}",
     struct.pack("!I", 2) + b"[]", struct.pack("!I", 4) + b"\xff\xfe{}", struct.pack("!I", 60_000) + b"[" * 60_000],
)  # fmt: skip
def test_noise_ends_the_clip(child: FakeChild, noise: bytes) -> None:
    child.socket.sendall(noise)
    with pytest.raises(DecodeError) as error:
        child.start()
    assert_distrusted(child, error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["type", "slot", "width", "height", "index", "t_s", "slot_bytes", "outcome", "message"]),
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
                st.sampled_from(["frame", "ring", "end", "error", "info", "progress"]),
            ),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_any_messages_give_frames_an_end_or_a_decode_error(messages: list[dict[str, Any]]) -> None:
    child = FakeChild()
    try:
        child.says(INFO, RING, *messages)
        child.socket.shutdown(socket.SHUT_WR)
        os.write(child.report, REPORT.pack(signal.SIGKILL))
        child.start()
        with suppress(DecodeError):
            assert len(list(child.reader)) <= len(messages)
    finally:
        child.end()


def test_error_texts_are_sanitised(child: FakeChild) -> None:
    child.says({"type": "error", "outcome": "scored", "message": "\x1b[2J" + "x" * 5000})
    with pytest.raises(DecodeError) as error:
        child.start()
    assert error.value.outcome == "undecodable"
    assert len(str(error.value)) <= 1000
    assert str(error.value).isprintable()


def test_a_message_may_come_in_pieces(child: FakeChild) -> None:
    body = json.dumps(INFO).encode()
    for byte in struct.pack("!I", len(body)) + body:
        child.socket.sendall(bytes([byte]))
    child.start()
    assert child.reader.info.codec == "h264"


@pytest.mark.parametrize(
    ("status", "message"), [(signal.SIGSEGV, "SIGSEGV"), (256 * 3, "exit code 3"), (signal.SIGXCPU, "CPU time")]
)
def test_the_cause_of_death_is_reported(child: FakeChild, status: int, message: str) -> None:
    os.write(child.report, REPORT.pack(status))
    child.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(DecodeError, match=message):
        child.start()
