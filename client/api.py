"""The client: each method is one kind of request of the API."""

from __future__ import annotations

import io
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote

import httpx

from client.errors import ClientError, LostConnectionError, ServiceError, WaitTimeoutError
from client.events import events
from client.results import Decision, Face, Video
from client.resumable import RESUMABLE_BYTES, Progress, upload
from client.transport import Transport

_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BLOCK_BYTES: Final = 1 << 20
# The service sends a line at least this often while nothing happens, with room for a slow network, in seconds.
_QUIET_S: Final = 40.0
# Between looks where events do not come, in seconds.
_LOOK_S: Final = 2.0


class Client:
    """A service and a key. Safe to share between threads; a context manager.

    Args:
        url: of the service, such as http://127.0.0.1:8400.
        key: text of the API key, `unmask_...`.
        retries: further tries of requests that may be repeated, when the connection is lost or the service is busy.
        resumable_bytes: files from this size on are sent in pieces.
        http: sends the requests, for proxies or certificates of your own; it is closed with the client.

    Raises:
        ValueError: the URL is not one of http or https with a host.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        retries: int = 4,
        resumable_bytes: int = RESUMABLE_BYTES,
        http: httpx.Client | None = None,
    ) -> None:
        self._transport = Transport(url, key, retries=retries, http=http)
        self._resumable_bytes = resumable_bytes

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def submit(
        self,
        video: str | PathLike[str] | bytes,
        *,
        name: str = "",
        source_class: str = "upload",
        idempotency_key: str | None = None,
        start_s: float | None = None,
        end_s: float | None = None,
        progress: Progress = lambda sent, size: None,
    ) -> Video:
        """Hand in a video; it is on the service's disk when this returns, and will be judged.

        Args:
            video: a path, the bytes of a file, or a URI that the service may read (a text with `://`).
            name: of the video; that of the file without one.
            source_class: upload, or archive for what may wait longer.
            idempotency_key: your name for this request: another call with it gives the same video, so it may be
                repeated after a crash. Without one, each call hands in another video.
            start_s: judge only what follows, in seconds.
            end_s: judge only what is before.
            progress: called with the bytes sent and those of the file, where it is sent in pieces.

        Raises:
            ApiError: it was refused.
            LostConnectionError: no answer came; with the same `idempotency_key`, try again.
            OSError: the file cannot be read.
        """
        key = idempotency_key or str(uuid.uuid4())
        said = {"source_class": source_class}
        said |= {n: f"{s:.6f}" for n, s in (("start_s", start_s), ("end_s", end_s)) if s is not None}
        if isinstance(video, str) and _URI.match(video):
            wanted = {"uri": video, "name": name, "source_class": source_class, "start_s": start_s, "end_s": end_s}
            headers = {"Idempotency-Key": key}
            answer = self._transport.request("POST", "/v1/videos", json=wanted, headers=headers, repeatable=True)
            return Video.of(answer.json())
        if isinstance(video, bytes):
            content = video
            return self._sent(lambda: io.BytesIO(content), len(content), name, key, said, progress)
        path = Path(video)
        return self._sent(lambda: path.open("rb"), path.stat().st_size, name or path.name, key, said, progress)

    def wait(self, id_: str, timeout_s: float = 600.0, *, heard: Callable[[str, Any], None] | None = None) -> Video:
        """The video once it is judged: by its events, or by looking now and then where those do not come.

        Args:
            id_: of the video.
            timeout_s: longest time to wait.
            heard: called with each event's kind and data, such as "progress" and {"share": 0.4}.

        Raises:
            WaitTimeoutError: it is not judged yet.
            ApiError: it was deleted meanwhile, or the key ended.
        """
        end_s = time.monotonic() + timeout_s
        while not (video := self.get(id_)).is_done:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise WaitTimeoutError(f"video {id_} is {video.state} after {timeout_s:g} s")
            try:
                self._hear(id_, end_s, heard)
            except (LostConnectionError, ServiceError):
                time.sleep(max(0.0, min(_LOOK_S, end_s - time.monotonic())))
        return video

    def get(self, id_: str) -> Video:
        """A video with its verdict and decisions.

        Raises:
            NotFoundError: it does not exist, or is not for this key.
        """
        return Video.of(self._get(_path(id_)))

    def list(self, **query: str | int | bool) -> Iterator[Video]:
        """The videos that this key may see, page by page, the newest first.

        Args:
            query: state, outcome, label, source_class, name, decided, sort, limit: as docs/api.md has them.
        """
        page = self._get("/v1/videos", params={"limit": 200, **query})
        while True:
            yield from (Video.of(each) for each in page["videos"])
            following = page["next"]
            if following is None:
                return
            if not following.startswith("/v1/videos?"):
                raise ClientError(f"the next page is not of this service: {following!r}")
            page = self._get(following)

    def record(self, id_: str) -> dict[str, Any]:
        """The whole record, see docs/contracts.md.

        Raises:
            NotFoundError: it is not judged yet.
        """
        found: dict[str, Any] = self._get(f"{_path(id_)}/record")
        return found

    def frames(
        self, id_: str, *, track: int | None = None, from_s: float = 0.0, to_s: float | None = None
    ) -> tuple[Face, ...]:
        """The scored faces, all of them or those of a person or a stretch."""
        asked = {"track": track, "from_s": from_s, "to_s": to_s}
        query = {name: value for name, value in asked.items() if value is not None}
        return tuple(Face.of(each) for each in self._get(f"{_path(id_)}/frames", params=query)["frames"])

    def decide(
        self, id_: str, decision: str, *, track: int | None = None, reason: str = "", comment: str = ""
    ) -> Decision:
        """Decide on a clip, or on a person in it: fake, real, unsure or not_applicable."""
        wanted = {"decision": decision, "track": track, "reason": reason, "comment": comment}
        return Decision.of(self._transport.request("POST", f"{_path(id_)}/decisions", json=wanted).json())

    def undo(self, id_: str) -> Decision:
        """Take your last decision on a video back, within five minutes."""
        answer = self._transport.request("DELETE", f"{_path(id_)}/decisions/last", repeatable=False)
        return Decision.of(answer.json())

    def delete(self, id_: str) -> None:
        """Delete a video with its file, verdict, pictures and decisions."""
        self._transport.request("DELETE", _path(id_))

    def webhook_public_key(self) -> str:
        """What `verify_webhook` takes."""
        return str(self._get("/.well-known/unmask.json")["webhook_public_key"])

    def _get(self, path: str, **more: Any) -> Any:
        return self._transport.request("GET", path, **more).json()

    def _sent(
        self,
        opened: Callable[[], BinaryIO],
        size_bytes: int,
        name: str,
        key: str,
        said: dict[str, str],
        progress: Progress,
    ) -> Video:
        if size_bytes >= self._resumable_bytes > 0:
            metadata = {"filename": name, **said}
            return self.get(upload(self._transport, opened, size_bytes, metadata, key, progress))
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_bytes),
            "Idempotency-Key": key,
        }
        answer = self._transport.request(
            "POST",
            "/v1/videos",
            params={"name": name, **said},
            headers=headers,
            content=lambda: _blocks(opened),
            repeatable=True,
        )
        return Video.of(answer.json())

    def _hear(self, id_: str, end_s: float, heard: Callable[[str, Any], None] | None) -> None:
        """Follow the events of a video to their end, or until this time."""
        read_s = max(0.1, min(_QUIET_S, end_s - time.monotonic()))
        with self._transport.stream(f"{_path(id_)}/events", read_s=read_s) as answer:
            for event in events(answer.iter_lines()):
                if event is not None and heard is not None:
                    heard(event.kind, event.data)
                if time.monotonic() > end_s:
                    return


def _blocks(opened: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with closing(opened()) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _path(id_: str) -> str:
    return f"/v1/videos/{quote(id_, safe='')}"
