"""Slots of shared memory that pass frames from the decode child to the worker without a copy."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile

import numpy as np

from pipeline.types import Image

# One slot held by the consumer, one ready, one being written, and one spare against jitter.
_SLOTS = 4
# Very large frames get fewer slots, so that a ring stays below this; never fewer than two.
_MAX_RING_BYTES = 512 * 2**20


def slots_for(slot_bytes: int) -> int:
    """How many slots of this size a ring has."""
    return max(2, min(_SLOTS, _MAX_RING_BYTES // slot_bytes))


def allocate(size_bytes: int) -> int:
    """A new file descriptor of shared memory, all zero; pages are taken when written to.

    On Linux it is sealed: if the child could shrink it, reading past the end would kill the reader (SIGBUS).
    Elsewhere it is an unlinked temporary file, which a child could shrink.

    Raises:
        OSError: no memory, or no room for temporary files.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd
    with tempfile.TemporaryFile() as file:
        file.truncate(size_bytes)
        return os.dup(file.fileno())


class Ring:
    """A mapping of such memory. It exists as long as this object or a view of a slot."""

    def __init__(self, fd: int, slots: int, slot_bytes: int) -> None:
        """Map the memory behind `fd`, which may be closed afterwards.

        Raises:
            OSError: it cannot be mapped.
        """
        self.slots = slots
        self.slot_bytes = slot_bytes
        self._bytes = np.frombuffer(mmap.mmap(fd, slots * slot_bytes), np.uint8)

    def view(self, slot: int, height: int, width: int) -> Image:
        """The start of the slot as uint8 [height, width, 3].

        Raises:
            ValueError: there is no such slot, or it is too small.
        """
        size_bytes = height * width * 3
        if not 0 <= slot < self.slots or size_bytes > self.slot_bytes:
            raise ValueError(
                f"no {height} x {width} picture fits slot {slot} of {self.slots} x {self.slot_bytes} bytes"
            )
        start = slot * self.slot_bytes
        return self._bytes[start : start + size_bytes].reshape(height, width, 3)
