"""A small S3 server on this machine: what s3fs asks for, kept in memory; signatures are not checked."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "uploads"


class S3Server(ThreadingHTTPServer):
    """It has one bucket, `BUCKET`.

    Attributes:
        objects: bytes by key.
        uploads: parts of multipart uploads that were not completed, by their id and number.
        requests: what was asked for: method, key and `Range`.
        is_away: connections are closed without an answer.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.is_away = False

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def options(self) -> dict[str, str]:
        """Of s3fs."""
        return {"endpoint_url": self.url, "key": "key", "secret": "secret"}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """An S3 server until the end of the block."""
    with S3Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        self.close_connection = True
        return not self.server.is_away and super().parse_request()

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has gone
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _begin(self) -> tuple[str, str, dict[str, str], bytes]:
        place = urlsplit(self.path)
        bucket, _, key = unquote(place.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(place.query, keep_blank_values=True).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.command, key, self.headers.get("Range", "")))
        return bucket, key, query, body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _xml(self, name: str, inner: str) -> None:
        self._answer(200, f'<?xml version="1.0"?><{name}>{inner}</{name}>'.encode(), Content_Type="application/xml")

    def _error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(status, body, Content_Type="application/xml")

    def do_HEAD(self) -> None:
        bucket, key, _, _ = self._begin()
        if bucket != BUCKET or (key and key not in self.server.objects):
            self._error(404, "NotFound")
        else:
            self._answer(200, self.server.objects.get(key, b""), ETag=_etag(self.server.objects.get(key, b"")))

    def do_GET(self) -> None:
        bucket, key, query, _ = self._begin()
        if bucket != BUCKET:
            self._error(404, "NoSuchBucket")
        elif not key:
            self._list(query)
        elif (content := self.server.objects.get(key)) is None:
            self._error(404, "NoSuchKey")
        elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2]), len(content) - 1)
            place = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], ETag=_etag(content), Content_Range=place)
        else:
            self._answer(200, content, ETag=_etag(content))

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        names = sorted(key for key in self.server.objects if key.startswith(prefix))
        # Few to a page, so that callers have to ask for more.
        limit, after = min(3, int(query.get("max-keys", "1000"))), query.get("continuation-token", "")
        folders = {
            prefix + name.removeprefix(prefix).partition(delimiter)[0] + delimiter
            for name in names
            if delimiter and delimiter in name.removeprefix(prefix)
        }
        files = [name for name in names if not any(name.startswith(folder) for folder in folders) and name > after]
        page = files[:limit]
        inner = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(self.server.objects[name])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name in page
        )
        inner += "".join(
            f"<CommonPrefixes><Prefix>{escape(each)}</Prefix></CommonPrefixes>" for each in sorted(folders)
        )
        is_cut = len(files) > limit
        if is_cut:
            inner += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        inner += f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{str(is_cut).lower()}</IsTruncated>"
        self._xml("ListBucketResult", inner)

    def do_PUT(self) -> None:
        bucket, key, query, body = self._begin()
        if bucket != BUCKET or not key:
            self._error(404, "NoSuchBucket")
        elif "uploadId" in query:
            self.server.uploads[query["uploadId"]][int(query["partNumber"])] = body
            self._answer(200, ETag=_etag(body))
        else:
            self.server.objects[key] = body
            self._answer(200, ETag=_etag(body))

    def do_POST(self) -> None:
        bucket, key, query, _ = self._begin()
        if bucket != BUCKET:
            self._error(404, "NoSuchBucket")
        elif "uploads" in query:
            id_ = f"upload-{len(self.server.requests)}"
            self.server.uploads[id_] = {}
            self._xml("InitiateMultipartUploadResult", f"<UploadId>{id_}</UploadId>")
        else:
            parts = self.server.uploads.pop(query["uploadId"])
            self.server.objects[key] = b"".join(part for _, part in sorted(parts.items()))
            self._xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>")

    def do_DELETE(self) -> None:
        _, key, query, _ = self._begin()
        if "uploadId" in query:
            self.server.uploads.pop(query["uploadId"], None)
        else:
            self.server.objects.pop(key, None)
        self._answer(204)


def _etag(content: bytes) -> str:
    # Of the first bytes: objects do not change here, and a hash of all of them for each range would take long.
    return f'"{hashlib.md5(content[:4096], usedforsecurity=False).hexdigest()}"'
