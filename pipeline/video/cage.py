"""The cage of a decode child: after `lock` it can compute, use its memory, and talk through the descriptors it has.

Three layers, each of which a kernel may lack: no privileges, Landlock without any rule (no file, no TCP port, no signal
and no abstract socket outside), and a seccomp allow-list of system calls. They take from a decoder exploit what the
worker's rights would give it: its files, Redis, signals to and memory of its processes, a life beyond the clip.

Sources: landlock(7), seccomp(2), capabilities(7), the kernel's syscall tables (arch/x86/entry/syscalls/syscall_64.tbl,
scripts/syscall.tbl), linux/audit.h, linux/filter.h, linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

# linux/prctl.h, linux/seccomp.h, linux/capability.h
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_NAME = 4, 38, 15
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF, _LANDLOCK_GET_VERSION = 444, 446, 1

# linux/landlock.h: rights on files and on TCP ports, and scopes, by the version of the interface that added them.
_LANDLOCK_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
_LANDLOCK_PORTS = {4: 0b11}
_LANDLOCK_SCOPES = {6: 0b11}

_CLONE_THREAD, _PROT_EXEC = 0x10000, 4
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 1030


@dataclass(frozen=True, slots=True)
class Machine:
    """An architecture: its number in audit records, and the numbers of its system calls."""

    audit: int
    seccomp: int
    capset: int
    clone3: int
    calls: dict[str, int]


# Called by glibc, Python, libav, OpenCV and NumPy while they decode; some only with certain arguments, see `_program`.
_X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17, "readv": 19, "writev": 20,
    "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39, "sendto": 44,
    "recvfrom": 45, "sendmsg": 46, "recvmsg": 47, "shutdown": 48, "clone": 56, "exit": 60, "fcntl": 72,
    "gettimeofday": 96, "sysinfo": 99, "sigaltstack": 131, "prctl": 157, "gettid": 186, "time": 201, "futex": 202,
    "sched_getaffinity": 204, "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229,
    "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "ppoll": 271, "set_robust_list": 273, "prlimit64": 302,
    "getcpu": 309, "getrandom": 318, "membarrier": 324, "rseq": 334,
}  # fmt: skip
_AARCH64 = {
    "dup": 23, "fcntl": 25, "close": 57, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66,
    "pread64": 67, "ppoll": 73, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99,
    "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123,
    "sched_yield": 124, "restart_syscall": 128, "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "prctl": 167, "getcpu": 168, "gettimeofday": 169, "getpid": 172,
    "gettid": 178, "sysinfo": 179, "sendto": 206, "recvfrom": 207, "shutdown": 210, "sendmsg": 211, "recvmsg": 212,
    "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "mmap": 222, "mprotect": 226, "madvise": 233,
    "prlimit64": 261, "getrandom": 278, "membarrier": 283, "rseq": 293,
}  # fmt: skip
_MACHINES = {
    "x86_64": Machine(0xC000003E, seccomp=317, capset=126, clone3=435, calls=_X86_64),
    "aarch64": Machine(0xC00000B7, seccomp=277, capset=91, clone3=435, calls=_AARCH64),
}

# linux/filter.h: load a word of the record, jump if equal, jump if a bit is set, jump if at least, return.
_LOAD, _EQUAL, _BITS, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Offsets in struct seccomp_data; of a 64-bit argument the lower half, both machines being little-endian.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
# x86-64 kernels accept the calls of the x32 interface under numbers from here on.
_X32: Final = 0x40000000


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers hold.

    Attributes:
        privileges: no new privileges, no capabilities, and no other process may look in.
        landlock: version of Landlock's interface; 0: the kernel has none.
        seccomp: only the listed system calls are possible.
    """

    privileges: bool
    landlock: int
    seccomp: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What this system lacks."""
        held = {"privileges": self.privileges, "Landlock": self.landlock > 0, "seccomp": self.seccomp}
        return tuple(name for name, holds in held.items() if not holds)

    def to_dict(self) -> dict[str, object]:
        """For a message."""
        return asdict(self)


NO_LAYERS = Layers(privileges=False, landlock=0, seccomp=False)


def lock() -> Layers:
    """Lock this process in; nothing unlocks it. Call it while it has one thread; later ones are locked in as well.

    Layers that the system lacks are left out; what they are is returned.
    """
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        return NO_LAYERS
    libc = ctypes.CDLL(None, use_errno=True)
    no_new = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    closed = libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    powerless = _drop_capabilities(libc, machine)
    landlock = _landlock(libc) if no_new else 0
    return Layers(no_new and closed and powerless, landlock, no_new and _seccomp(libc, machine))


def _drop_capabilities(libc: ctypes.CDLL, machine: Machine) -> bool:
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    nothing = bytes(6 * 4)
    return bool(libc.syscall(ctypes.c_long(machine.capset), header, nothing) == 0)


def _landlock(libc: ctypes.CDLL) -> int:
    """Refuse everything that Landlock can refuse; returns the version of its interface, 0 where it is missing."""
    version = int(
        libc.syscall(ctypes.c_long(_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), _LANDLOCK_GET_VERSION)
    )
    if version < 1:
        return 0

    def rights(by_version: dict[int, int]) -> int:
        return sum(bits for since, bits in by_version.items() if version >= since)

    # Fields that a version does not know must be absent from the structure.
    fields = [rights(_LANDLOCK_FILES), rights(_LANDLOCK_PORTS), rights(_LANDLOCK_SCOPES)]
    known = fields[: 1 + (version >= 4) + (version >= 6)]
    attributes = struct.pack(f"={len(known)}Q", *known)
    ruleset = libc.syscall(
        ctypes.c_long(_LANDLOCK_CREATE_RULESET), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0)
    )
    if ruleset < 0:
        return 0
    try:
        done = libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT_SELF), ctypes.c_int(ruleset), ctypes.c_uint(0)) == 0
    finally:
        os.close(ruleset)
    return version if done else 0


def _seccomp(libc: ctypes.CDLL, machine: Machine) -> bool:
    program = b"".join(_program(machine))
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    loaded = Program(len(program) // 8, ctypes.addressof(code))
    flags = _SECCOMP_FILTER_FLAG_TSYNC
    call = ctypes.c_long(machine.seccomp)
    return bool(libc.syscall(call, _SECCOMP_SET_MODE_FILTER, ctypes.c_uint(flags), ctypes.byref(loaded)) == 0)


def _program(machine: Machine) -> Iterator[bytes]:
    """The filter, instruction by instruction: calls that are not listed fail with EPERM, clone3 with ENOSYS.

    glibc falls back from clone3 to clone, whose flags can be checked.
    """
    calls = machine.calls
    pid = os.getpid()
    yield _code(_LOAD, _ARCH)
    yield _code(_EQUAL, machine.audit, jump=1)
    yield _code(_RETURN, _KILL)
    yield _code(_LOAD, _NUMBER)
    yield _code(_AT_LEAST, _X32, otherwise=1)
    yield _code(_RETURN, _KILL)
    conditions: dict[str, list[bytes]] = {
        # Threads only.
        "clone": [*_argument(0), _code(_BITS, _CLONE_THREAD, jump=1), _refuse(), _allow()],
        # No code that is not there yet.
        "mmap": [*_argument(2), _code(_BITS, _PROT_EXEC, otherwise=1), _refuse(), _allow()],
        "mprotect": [*_argument(2), _code(_BITS, _PROT_EXEC, otherwise=1), _refuse(), _allow()],
        # To its own threads: abort().
        "tgkill": [*_argument(0), _code(_EQUAL, pid, jump=1), _refuse(), _allow()],
        "prctl": [*_argument(0), _code(_EQUAL, _PR_SET_NAME, jump=1), _refuse(), _allow()],
        # Limits are read, of this process, and not set: a null pointer, both halves of it.
        "prlimit64": [
            *_argument(0), _code(_EQUAL, 0, jump=1), _refuse(),
            *_argument(2), _code(_EQUAL, 0, jump=1), _refuse(),
            *_argument(2, upper=True), _code(_EQUAL, 0, jump=1), _refuse(), _allow(),
        ],
        "fcntl": [
            *_argument(1),
            *(_code(_EQUAL, command, jump=5 - i) for i, command in enumerate(
                (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)
            )),
            _refuse(), _allow(),
        ],
    }  # fmt: skip
    for name, number in sorted(calls.items()):
        body = conditions.get(name, [_allow()])
        yield _code(_EQUAL, number, otherwise=len(body))
        yield from body
    yield _code(_EQUAL, machine.clone3, otherwise=1)
    yield _code(_RETURN, _ERRNO | errno.ENOSYS)
    yield _refuse()


def _argument(index: int, *, upper: bool = False) -> list[bytes]:
    return [_code(_LOAD, _ARGUMENTS + 8 * index + (4 if upper else 0))]


def _allow() -> bytes:
    return _code(_RETURN, _ALLOW)


def _refuse() -> bytes:
    return _code(_RETURN, _ERRNO | errno.EPERM)


def _code(operation: int, value: int, *, jump: int = 0, otherwise: int = 0) -> bytes:
    """One instruction: after a comparison, how many to skip if it holds, and if not."""
    return struct.pack("=HBBI", operation, jump, otherwise, value)
