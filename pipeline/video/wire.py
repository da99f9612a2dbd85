"""Messages between worker, fork server and decode child: JSON objects on a Unix socket, with file descriptors."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

# The longest valid message is an error text of a few hundred bytes.
MAX_MESSAGE_BYTES = 64 * 1024
# Of one text field: names of codecs, error messages.
MAX_TEXT = 1000
# Seconds and frames per second stay far below.
_MAX_NUMBER = 1e12
_LENGTH = struct.Struct("!I")
# What the fork server writes into a child's pipe: its pid, or minus errno if the fork failed; and its exit status as
# `os.waitpid` gives it.
REPORT = struct.Struct("!i")


class ProtocolError(Exception):
    """The peer sent something invalid: it is broken or hostile."""


class Channel:
    """One end of a connected stream socket. Receiving is for one thread, sending for one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """File descriptor of the socket, for select."""
        return self._sock.fileno()

    def set_timeout(self, timeout_s: float | None) -> None:
        """How long the peer may take for each step of a message; None: any time. TimeoutError is raised after it."""
        self._sock.settimeout(timeout_s)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message and duplicates of `fds`.

        Raises:
            OSError: the peer is gone.
        """
        body = json.dumps(message, separators=(",", ":")).encode()
        data = _LENGTH.pack(len(body)) + body
        sent = socket.send_fds(self._sock, [data], fds) if fds else 0
        self._sock.sendall(data[sent:])

    def receive(self, max_fds: int = 0) -> tuple[Message, list[int]] | None:
        """The next message and the descriptors that came with it, which are now the caller's; None if the peer hung up.

        Raises:
            ProtocolError: it is not a JSON object, or longer than any valid one.
            OSError: the connection broke.
        """
        fds: list[int] = []
        try:
            header = self._exactly(_LENGTH.size, fds, max_fds)
            if header is None:
                return None
            (length,) = _LENGTH.unpack(header)
            if length > MAX_MESSAGE_BYTES:
                raise ProtocolError(f"a message of {length} bytes; at most {MAX_MESSAGE_BYTES} are expected")
            body = self._exactly(length, fds, max_fds)
            if body is None:
                return None
            message = _parse(body)
            received, fds = fds, []
            return message, received
        finally:
            for fd in fds:
                os.close(fd)

    def _exactly(self, count: int, fds: list[int], max_fds: int) -> bytes | None:
        data = b""
        while len(data) < count:
            if len(fds) < max_fds:
                part, received, _, _ = socket.recv_fds(self._sock, count - len(data), max_fds - len(fds))
                fds += received
            else:
                part = self._sock.recv(count - len(data))
            if not part:
                return None
            data += part
        return data

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def _parse(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a JSON object is expected, got {body[:40]!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a JSON object is expected, got {type(message).__name__}")
    return message


def integer(message: Message, name: str, low: int, high: int) -> int:
    """The field as an int in low..high.

    Raises:
        ProtocolError: it is missing, of another type or out of range.
    """
    value = message.get(name)
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"{name} must be an integer in {low}..{high}, got {value!r:.40}")
    return value


def number(message: Message, name: str) -> float:
    """The field as a float, finite and not negative.

    Raises:
        ProtocolError: it is anything else.
    """
    value = message.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
        raise ProtocolError(f"{name} must be a number in 0..{_MAX_NUMBER:g}, got {value!r:.40}")
    return float(value)


def optional_number(message: Message, name: str) -> float | None:
    """The field as a float, finite and not negative, or None.

    Raises:
        ProtocolError: it is anything else.
    """
    return None if message.get(name) is None else number(message, name)


def ranges(message: Message, name: str, most: int) -> tuple[tuple[float, float], ...]:
    """The field as at most `most` pairs of numbers, each from smaller to larger, not negative and growing.

    Raises:
        ProtocolError: it is anything else.
    """
    value = message.get(name)
    if not isinstance(value, list) or len(value) > most or any(type(pair) is not list for pair in value):
        raise ProtocolError(f"{name} must be at most {most} pairs of numbers, got {value!r:.40}")
    found: list[tuple[float, float]] = []
    for pair in value:
        start, end = (number({"n": part}, "n") for part in (pair if len(pair) == 2 else (None, None)))
        if not (found[-1][1] if found else 0.0) <= start < end:
            raise ProtocolError(f"{name} must grow, got {pair!r:.40}")
        found.append((start, end))
    return tuple(found)


def text(message: Message, name: str) -> str:
    """The field as printable text of at most `MAX_TEXT` characters.

    Raises:
        ProtocolError: it is not text.
    """
    value = message.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"{name} must be a text, got {value!r:.40}")
    return "".join(c if c.isprintable() else "?" for c in value[:MAX_TEXT])
