"""A failure affects only its own clip, and no process is left behind."""

from __future__ import annotations

import collections
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.video import clip_reader
from pipeline.video.sampling import Every, Fps
from pipeline.video.sandbox import ClipReader, DecodeError, DecodeServer, Limits
from tests import media
from tests.pipeline.video.reading import read

GONE_S = 20


def server_process(server: DecodeServer) -> psutil.Process:
    server.isolation  # noqa: B018 - starts the server
    return next(p for p in psutil.Process().children() if "pipeline.video.forkserver" in p.cmdline())


def descendants() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "pipeline.video.forkserver" in p.cmdline()]


def wait_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=GONE_S)
    assert not alive


@pytest.fixture
def server() -> Iterator[DecodeServer]:
    before = {p.pid for p in descendants()}
    with DecodeServer() as server:
        yield server
    assert {p.pid for p in descendants()} <= before


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Wait for this many checks of the clips."""
    done = threading.Semaphore(0)
    check = ClipReader.check

    def counted(clip: ClipReader) -> None:
        check(clip)
        done.release()

    monkeypatch.setattr(ClipReader, "check", counted)

    def wait(count: int) -> None:
        for _ in range(count):
            assert done.acquire(timeout=GONE_S)

    return wait


class Clock:
    """The clock of the limits: that of the machine, moved by `offset_s`; while it `runs`, a minute on at each look."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.runs = False

    def monotonic(self) -> float:
        self.offset_s += 60.0 * self.runs
        return time.monotonic() + self.offset_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clip_reader, "time", clock)
    return clock


@pytest.fixture(scope="module")
def long_clip(clips: Path) -> Path:
    path = clips / "long.mp4"
    media.make_long_clip(path, minutes=2, size=(320, 180), fps=25)
    return path


def frames_until_error(clip: ClipReader) -> tuple[int, DecodeError]:
    frames = itertools.count()
    with pytest.raises(DecodeError) as error:
        collections.deque(zip(clip, frames, strict=False), maxlen=0)
    return next(frames), error.value


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_dead_decoder_is_named_and_fails_only_its_clip(
    server: DecodeServer, long_clip: Path, one_face: Path, number: signal.Signals
) -> None:
    with server.open(long_clip, "dies", Every(1)) as clip, server.open(one_face, "lives", Every(1)) as other:
        first = next(clip).image.copy()
        kept = next(clip)
        os.kill(clip.pid, number)
        frames, error = frames_until_error(clip)
        assert error.outcome == "undecodable"
        assert number.name in str(error)
        assert frames < 10
        # Earlier frames and the error stay valid.
        assert first.std() > 10
        assert kept.image.shape == first.shape
        with pytest.raises(DecodeError, match=number.name):
            next(clip)
        assert sum(1 for _ in other) == 100


def test_a_hanging_decoder_is_killed(server: DecodeServer, long_clip: Path, one_face: Path, clock: Clock) -> None:
    with server.open(long_clip, "hangs", Every(1)) as clip:
        next(clip)
        os.kill(clip.pid, signal.SIGSTOP)
        process = psutil.Process(clip.pid)
        assert sum(1 for _ in server.open(one_face, "lives", Every(1))) == 100
        clock.runs = True
        _, error = frames_until_error(clip)
        assert error.outcome == "over_limit"
        assert "heartbeat" in str(error)
        wait_gone([process])


def test_total_time_is_limited(server: DecodeServer, long_clip: Path) -> None:
    # Whether it ends in `open` or later depends on the machine.
    with pytest.raises(DecodeError) as error, server.open(long_clip, "slow", Every(1), Limits(wall_s=1e-4)) as clip:
        collections.deque(clip, maxlen=0)
    assert error.value.outcome == "over_limit"


def test_a_slow_consumer_does_not_fail_the_decoder(
    server: DecodeServer, long_clip: Path, rounds: Callable[[int], None], clock: Clock
) -> None:
    limits = Limits()
    with server.open(long_clip, "waits", Every(1), limits) as clip:
        next(clip)
        # It waits on a full ring, far beyond its limits.
        clock.offset_s += limits.wall_s + limits.stall_s
        rounds(3)
        assert sum(1 for _ in clip) == 2999


def test_memory_is_watched(server: DecodeServer, long_clip: Path, one_face: Path) -> None:
    with server.open(long_clip, "eats", Every(1), Limits(rss_bytes=2**20)) as clip:
        _, error = frames_until_error(clip)
        assert error.outcome == "over_limit"
        assert "memory" in str(error)
    assert len(read(server, one_face, Fps(1)).images) == 4


def test_memory_stays_level_over_a_long_clip(server: DecodeServer, long_clip: Path) -> None:
    with server.open(long_clip, "clip", Every(1)) as clip:
        process = psutil.Process(clip.pid)
        used_bytes = [process.memory_info().rss for frame in clip if frame.index % 100 == 50]
    assert len(used_bytes) == 30
    assert max(used_bytes) - used_bytes[0] < 8 * 2**20


def test_memory_is_limited_from_within(server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    media.huge_picture(path, side_px=8000)
    with pytest.raises(DecodeError, match="memory") as error:
        read(server, path, limits=Limits(data_bytes=200 * 2**20))
    assert error.value.outcome == "over_limit"
    assert len(read(server, path).images) == 1


def test_cpu_time_is_limited(server: DecodeServer, tmp_path: Path) -> None:
    path = tmp_path / "busy.mp4"
    media.make_long_clip(path, minutes=5, size=(640, 360))
    with server.open(path, "busy", Fps(0.001), Limits(cpu_s=1)) as clip:
        _, error = frames_until_error(clip)
    assert error.outcome == "over_limit"
    assert "CPU" in str(error)


@pytest.mark.parametrize("limits", [Limits(max_frames=60), Limits(max_pixels=640 * 359), Limits(max_duration_s=3.9)])
def test_frames_pixels_and_seconds_are_limited(server: DecodeServer, one_face: Path, limits: Limits) -> None:
    with pytest.raises(DecodeError) as error:
        read(server, one_face, limits=limits)
    assert error.value.outcome == "over_limit"


def test_delivered_frames_stay_after_a_limit_is_passed(server: DecodeServer, one_face: Path) -> None:
    with server.open(one_face, "clip", Every(1), Limits(max_frames=60)) as clip:
        frames, error = frames_until_error(clip)
    assert frames == 60
    assert "60 frames" in str(error)


def test_a_view_is_valid_until_the_next_frame_and_does_not_copy(server: DecodeServer, one_face: Path) -> None:
    with server.open(one_face, "clip", Every(1)) as clip:
        seen = [frame.image.__array_interface__["data"][0] for frame in clip]
    assert len(set(seen)) == 4


def test_a_child_waits_when_all_slots_are_full(
    server: DecodeServer, long_clip: Path, rounds: Callable[[int], None]
) -> None:
    with server.open(long_clip, "clip", Every(1)) as clip:
        next(clip)
        process = psutil.Process(clip.pid)
        spent_s = [-1.0, process.cpu_times().user]
        while spent_s[-1] > spent_s[-2]:
            rounds(2)
            spent_s.append(process.cpu_times().user)
        assert spent_s[-1] < 5.0
        assert next(clip).index == 1


def test_a_dead_server_is_replaced_and_running_clips_continue(
    server: DecodeServer, long_clip: Path, one_face: Path
) -> None:
    with server.open(long_clip, "clip", Every(1)) as clip:
        next(clip)
        first = server_process(server)
        first.kill()
        wait_gone([first])
        assert len(read(server, one_face, Fps(1)).images) == 4
        assert server_process(server).pid != first.pid
        assert sum(1 for _ in clip) == 2999


def test_a_clip_closed_in_the_middle_leaves_no_process(server: DecodeServer, long_clip: Path) -> None:
    with server.open(long_clip, "clip", Every(1)) as clip:
        next(clip)
        process = psutil.Process(clip.pid)
    wait_gone([process])
    clip.close()


def test_closing_the_server_ends_running_clips(long_clip: Path) -> None:
    server = DecodeServer()
    clips = [server.open(long_clip, f"clip-{n}", Every(1)) for n in range(3)]
    processes = [server_process(server), *(psutil.Process(clip.pid) for clip in clips)]
    server.close()
    server.close()
    wait_gone(processes)
    for clip in clips:
        with clip, pytest.raises(DecodeError, match="closed"):
            next(clip)
    with pytest.raises(RuntimeError, match="closed"):
        server.open(long_clip, "late")


@pytest.mark.parametrize("pidfd", [True, False])
def test_another_process_with_the_number_of_an_ended_child_lives(
    pidfd: bool, no_face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers are used again after 32,768 processes, or threads: one of this process would end all of it."""
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    server = DecodeServer()
    clip = server.open(no_face, "clip", Every(10))
    assert len(list(clip)) == 3
    clip.close()
    clip.close()
    other = process_with_number(clip.pid)
    try:
        clip.close()
        clip.abort()
        server.close()
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
    finally:
        other.kill()
        other.wait()


def process_with_number(pid: int) -> subprocess.Popen[bytes]:
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("this user cannot choose the number of a process")
    for _ in range(100):  # another process may take it first
        last.write_text(str(pid - 1))
        process = subprocess.Popen(["sleep", "600"])
        if process.pid == pid:
            return process
        process.kill()
        process.wait()
    raise AssertionError(f"no process got the number {pid}")


def test_children_die_with_a_killed_parent(long_clip: Path, tmp_path: Path) -> None:
    program = """
import sys, time
from pathlib import Path
from pipeline.video.sampling import Every
from pipeline.video.sandbox import DecodeServer
server = DecodeServer()
clips = [server.open(Path(sys.argv[1]), "clip", Every(1)) for _ in range(2)]
for clip in clips:
    next(clip)
print(*(clip.pid for clip in clips), flush=True)
time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(long_clip)], stdout=subprocess.PIPE, cwd=tmp_path, env=environment
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    processes = psutil.Process(parent.pid).children(recursive=True)
    assert {process.pid for process in processes} > set(pids)
    os.kill(pids[0], signal.SIGSTOP)  # one that cannot notice it itself
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_gone(processes)


def test_many_clips_at_once_leak_neither_descriptors_nor_memory(server: DecodeServer, tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    media.make_clip(good, seconds=0.4, size=(160, 90), face_px=(30, 40))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(good.read_bytes()[:2000])

    def work(n: int) -> int:
        if n % 5 == 0:
            with pytest.raises(DecodeError):
                read(server, broken)
            return 0
        if n % 5 == 1:
            with server.open(good, "dropped", Every(1)) as clip:
                next(clip)
            return 0
        return len(read(server, good).images)

    us, them = psutil.Process(), server_process(server)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(40))) == {0, 10}
        before = us.num_fds(), them.num_fds()
        ours, theirs = us.memory_info().rss, them.memory_info().rss
        assert set(pool.map(work, range(120))) == {0, 10}
    assert us.num_fds() <= before[0]
    assert them.num_fds() <= before[1] + 1  # it may be about to close the pipe of the last child
    assert us.memory_info().rss - ours < 20 * 2**20
    assert them.memory_info().rss - theirs < 5 * 2**20
    assert not them.children()


def test_the_server_forks_with_one_thread_and_light_imports(server: DecodeServer) -> None:
    process = server_process(server)
    assert process.num_threads() == 1
    if sys.platform == "linux":
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "libavcodec" in maps
        assert "libtorch" not in maps


def test_the_child_holds_its_own_descriptors_only(server: DecodeServer, long_clip: Path) -> None:
    with server.open(long_clip, "a", Every(1)) as a, server.open(long_clip, "b", Every(1)) as b:
        next(a), next(b)
        held = psutil.Process(b.pid)
        # Standard streams, the socket, the clip, libav's duplicate of it, and mmap's of the ring.
        assert held.num_fds() <= 7
        if sys.platform == "linux":
            limits = Path(f"/proc/{b.pid}/limits").read_text()
            assert "Max file size             0" in limits
            assert "Max core file size        0" in limits


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_isolation_is_reported_correctly(server: DecodeServer, one_face: Path) -> None:
    if not server.isolation.no_network:
        pytest.skip("this machine does not let us leave the network")
    with server.open(one_face, "clip", Every(1)) as clip:
        interfaces = Path(f"/proc/{clip.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
        assert Path(f"/proc/{clip.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_the_child_has_no_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_API_KEY", "secret")
    with DecodeServer() as server:
        assert "UNMASK_API_KEY" not in server_process(server).environ()


def test_it_starts_from_any_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_face: Path) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('imported from the present directory')")
    monkeypatch.chdir(tmp_path)
    with DecodeServer() as server:
        assert len(read(server, one_face, Fps(1)).images) == 4


def test_a_server_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch, one_face: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with DecodeServer() as server, pytest.raises(RuntimeError, match="exit code 1"):
        server.open(one_face, "clip")


def test_a_ring_cannot_be_shrunk() -> None:
    from pipeline.video import ring

    fd = ring.allocate(4096)
    try:
        if sys.platform == "linux":
            with pytest.raises(PermissionError):
                os.ftruncate(fd, 0)
        view = ring.Ring(fd, 1, 4096).view(0, 4, 4)
        view[:] = 7
        assert np.all(ring.Ring(fd, 1, 4096).view(0, 4, 4) == 7)
    finally:
        os.close(fd)
