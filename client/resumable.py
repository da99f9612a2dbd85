"""Uploads in pieces by the tus protocol 1.0.0: a lost connection costs one piece at most."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import BinaryIO, Final
from urllib.parse import quote

import httpx

from client.errors import ApiError, LostConnectionError
from client.transport import Transport, pause

# From this size on, uploads are resumable.
RESUMABLE_BYTES: Final = 64 << 20
PIECE_BYTES: Final = 32 << 20
_BLOCK_BYTES: Final = 1 << 20
_TUS: Final = {"Tus-Resumable": "1.0.0"}
# The service has other bytes than we think, is busy, or a proxy does not reach it.
_PASSING: Final = frozenset({409, 429, 502, 503, 504})
# Tries in a row without progress.
_MAX_TRIES: Final = 12

Progress = Callable[[int, int], None]


def upload(
    transport: Transport,
    opened: Callable[[], BinaryIO],
    size_bytes: int,
    metadata: Mapping[str, str],
    idempotency_key: str,
    progress: Progress,
    piece_bytes: int = PIECE_BYTES,
) -> str:
    """Send a file, and return the id of the video that it became.

    Args:
        transport: to the service.
        opened: opens the file.
        size_bytes: of it.
        metadata: of the video.
        idempotency_key: the same key, the same upload: another call goes on where an earlier one ended.
        progress: called with the bytes that the service has, and with all.
        piece_bytes: of a request.

    Raises:
        ApiError: the service refused it.
        LostConnectionError: it does not come back.
    """
    pairs = [f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in metadata.items()]
    headers = {
        **_TUS,
        "Upload-Length": str(size_bytes),
        "Upload-Metadata": ",".join(pairs),
        "Idempotency-Key": idempotency_key,
    }
    made = transport.request("POST", "/v1/uploads", headers=headers, repeatable=True)
    path = f"/v1/uploads/{quote(made.headers['location'].rpartition('/')[2], safe='')}"
    offset, video = int(made.headers["upload-offset"]), made.headers.get("unmask-video")
    tries, is_known = 0, True
    with closing(opened()) as file:
        while video is None:
            progress(offset, size_bytes)
            try:
                if is_known:
                    answer = _send(transport, path, file, offset, min(piece_bytes, size_bytes - offset))
                else:  # how much of the last piece has come
                    answer = transport.request("HEAD", path, headers=_TUS)
            except (LostConnectionError, ApiError) as error:
                if tries >= _MAX_TRIES or (isinstance(error, ApiError) and error.problem.status not in _PASSING):
                    raise
                pause(tries, error)
                tries, is_known = tries + 1, False
                continue
            now = int(answer.headers["upload-offset"])
            tries, is_known = (0 if now > offset else tries), True
            offset, video = now, answer.headers.get("unmask-video")
    progress(size_bytes, size_bytes)
    return str(video).rpartition("/")[2]


def _send(transport: Transport, path: str, file: BinaryIO, offset: int, length: int) -> httpx.Response:
    headers = {
        **_TUS,
        "Upload-Offset": str(offset),
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(length),
    }
    return transport.request("PATCH", path, headers=headers, content=lambda: _blocks(file, offset, length))


def _blocks(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    while length:
        block = file.read(min(_BLOCK_BYTES, length))
        if not block:
            raise OSError("the file has become shorter while it was sent")
        length -= len(block)
        yield block
