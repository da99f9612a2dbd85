"""The decode child's cage: what a decoder that a file has taken over would try, and what must still work."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.video import cage
from pipeline.video.sandbox import DecodeServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the cage is Linux's")

LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module", autouse=True)
def _whole_cage(decode_server: DecodeServer) -> None:
    if missing := decode_server.isolation.layers.missing:
        pytest.skip(f"this system lacks {', '.join(missing)}")


def in_cage(*actions: Callable[[], Any]) -> list[str]:
    """For each action, run in a locked child, "done" or its error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            cage.lock()
            for action in actions:
                try:
                    action()
                    said = "done"
                except BaseException as error:  # noqa: BLE001 - reported
                    said = type(error).__name__
                os.write(writing, f"{said}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        found = answers.read().split()
    os.waitpid(pid, 0)
    return found


def call(number: int, *arguments: Any) -> Callable[[], None]:
    """A raw system call, of the x86-64 table; fails with OSError."""

    def action() -> None:
        if LIBC.syscall(ctypes.c_long(number), *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")

    return action


def daemon() -> None:
    if os.fork() == 0:
        os.setsid()
        os._exit(0)


@pytest.mark.parametrize(
    "probe",
    [
        lambda path: path.read_bytes(),
        lambda path: Path("/etc/shadow").read_bytes(),
        lambda path: path.write_bytes(b"changed"),
        lambda path: os.truncate(path, 0),
        lambda path: path.rename(path.with_name("moved")),
        lambda path: path.unlink(),
        lambda path: path.with_name("new").symlink_to(path),
        lambda path: path.with_name("folder").mkdir(),
        lambda path: path.chmod(0o777),
        lambda path: path.stat(),
        lambda path: list(path.parent.iterdir()),
        lambda path: os.chdir("/"),
        lambda path: os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR),
        lambda path: os.open(f"/proc/{os.getppid()}/environ", os.O_RDONLY),
        lambda path: os.kill(os.getppid(), 0),
        lambda path: os.kill(os.getpid(), 0),
        lambda path: os.fork(),
        lambda path: daemon(),
        lambda path: os.execv("/bin/true", ["true"]),
        lambda path: os.posix_spawn("/bin/true", ["true"], {}),
        lambda path: os.setsid(),
        lambda path: os.setuid(0),
        lambda path: os.nice(-1),
        lambda path: socket.socket(socket.AF_INET),
        lambda path: socket.socket(socket.AF_UNIX),
        lambda path: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        lambda path: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        lambda path: socket.socketpair(),
        lambda path: os.memfd_create("x"),
        lambda path: os.pipe(),
        lambda path: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        lambda path: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40)),
        lambda path: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    ],
    ids=[
        "read a file", "read the passwords", "write", "truncate", "rename", "delete", "link", "make a folder", "chmod",
        "stat", "list a folder", "change the folder", "memory of the parent", "environment of the parent",
        "signal the parent", "signal itself", "fork", "a daemon", "exec", "spawn", "a session", "become root",
        "raise the priority", "IPv4", "a path socket", "vsock", "netlink", "a socket pair", "memfd", "a pipe",
        "executable memory", "raise a limit", "limits of the parent",
    ],
)  # fmt: skip
def test_a_taken_decoder_is_refused(probe: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    (said,) = in_cage(lambda: probe(path))
    assert said in ("PermissionError", "OSError", "ValueError")
    assert path.read_bytes() == b"content"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (101, (16, os.getpid(), 0, 0)),
        (310, (os.getpid(), None, 0, None, 0, 0)),
        (311, (os.getpid(), None, 0, None, 0, 0)),
        (425, (8, ctypes.create_string_buffer(120))),
        (272, (0x10000000 | 0x40000000,)),
        (56, (0x10000000 | 17, None, None, None, None)),
        (435, (ctypes.create_string_buffer(88), 88)),
        (321, (0, ctypes.create_string_buffer(128), 128)),
        (298, (ctypes.create_string_buffer(128), 0, -1, -1, 0)),
        (323, (0,)),
        (434, (os.getppid(), 0)),
        (437, (-100, b"/etc/passwd", ctypes.create_string_buffer(24), 24)),
        (303, (-100, b"/etc/passwd", None, None, 0)),
        (250, (0, 0, 0, 0, 0)),
        (165, (b"none", b"/", b"tmpfs", 0, None)),
        (308, (0, 0)),
        (317, (1, 0, None)),
        (157, (4, 1, 0, 0, 0)),
        (126, (ctypes.create_string_buffer(8), ctypes.create_string_buffer(24))),
        (234, (os.getppid(), os.getppid(), 0)),
        (129, (os.getppid(), 0, None)),
    ],
    ids=[
        "ptrace", "read another's memory", "write another's memory", "io_uring", "unshare", "clone a namespace",
        "clone3",
        "bpf", "perf", "userfaultfd", "pidfd", "openat2", "handles", "keys", "mount", "setns", "another filter",
        "become dumpable", "capabilities", "tgkill", "sigqueue",
    ],
)  # fmt: skip
def test_raw_system_calls_are_refused(number: int, arguments: tuple[Any, ...]) -> None:
    assert in_cage(call(number, *arguments)) in (["PermissionError"], ["OSError"])


def test_what_decoding_needs_still_works(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fd = os.open(path, os.O_RDONLY)
    ours, theirs = socket.socketpair()

    def use_descriptors() -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        assert os.read(fd, 99) == b"content"
        os.close(os.dup(fd))
        theirs.sendall(b"hello")

    def use_memory() -> None:
        held = [bytes(8 << 20) for _ in range(8)]
        del held
        mmap.mmap(-1, 4096)

    def use_threads() -> None:
        found: list[int] = []
        threads = [threading.Thread(target=found.append, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == [0, 1, 2, 3]

    try:
        assert in_cage(use_descriptors, use_memory, use_threads) == ["done"] * 3
        assert ours.recv(99) == b"hello"
    finally:
        os.close(fd)
        ours.close()
        theirs.close()


def test_threads_and_privileges_of_a_child(decode_server: DecodeServer, one_face: Path) -> None:
    with decode_server.open(one_face, "clip") as clip:
        next(clip)
        for task in Path(f"/proc/{clip.pid}/task").iterdir():
            lines = (task / "status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert {int(status[f"Cap{which}"], 16) for which in ("Eff", "Prm", "Inh")} == {0}


def test_a_system_without_a_whole_cage_can_be_refused(monkeypatch: pytest.MonkeyPatch, one_face: Path) -> None:
    """As on a kernel without seccomp: the server's answer lacks the layer."""
    answer = cage.Layers(privileges=True, landlock=7, seccomp=False)
    monkeypatch.setattr("pipeline.video.sandbox.Layers", lambda **found: answer)
    monkeypatch.setenv("UNMASK_SANDBOX", "required")
    with DecodeServer() as server, pytest.raises(RuntimeError, match="lacks seccomp"):
        server.open(one_face, "clip")
    monkeypatch.setenv("UNMASK_SANDBOX", "auto")
    with DecodeServer() as server, server.open(one_face, "clip") as clip:
        assert next(clip).image.size
        assert server.isolation.layers.missing == ("seccomp",)
    monkeypatch.setenv("UNMASK_SANDBOX", "none")
    with DecodeServer() as server, pytest.raises(ValueError, match="expected auto or required"):
        server.open(one_face, "clip")


def test_layers_go_into_a_message() -> None:
    layers = cage.Layers(privileges=True, landlock=0, seccomp=True)
    assert cage.Layers(**json.loads(json.dumps(layers.to_dict()))) == layers
    assert layers.missing == ("Landlock",)
    assert cage.NO_LAYERS.missing == ("privileges", "Landlock", "seccomp")
