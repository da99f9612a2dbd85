"""Any name becomes clips; a clip is opened, or the error says why not."""

from __future__ import annotations

import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.contracts import Outcome, clip_id_of
from pipeline.finding import expand
from pipeline.sources import ScanInterruptedError, Source, SourceError, SourceLimits, is_uri, open_source
from tests.pipeline.media_folder import CONTENT, media_folder

PATIENCE_S = 30


def names(*given: str | Path, recursive: bool = False) -> list[str]:
    return [source.name for source in expand([str(name) for name in given], recursive=recursive).sources]


def read(name: str | Path, **limits: Any) -> bytes:
    with open_source(Source(str(name)), SourceLimits(**limits)) as opened:
        content = os.read(opened.fd, 1 << 26)
        assert opened.size_bytes == len(content)
        assert opened.sha256 == hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened.fd)
    return content


def refusal(name: str | Path, **limits: Any) -> SourceError:
    with pytest.raises(SourceError) as caught, open_source(Source(str(name)), SourceLimits(**limits)):
        pass
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return media_folder(tmp_path / "clips")


class TestOpenFile:
    def test_bytes_and_hash(self, folder: Path) -> None:
        assert read(folder / "b.mp4") == CONTENT
        assert read(f"file://{folder / 'b.mp4'}") == CONTENT

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "empty.mp4").touch()
        assert read(tmp_path / "empty.mp4") == b""

    def test_the_fetch_limit_is_not_for_local_files(self, folder: Path) -> None:
        assert read(folder / "b.mp4", max_fetch_bytes=1) == CONTENT

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("missing.mp4", "No such file"),
            ("sub", "a folder"),
            ("b.mp4/c.mp4", "Not a directory"),
            ("x" * 300, "too long"),
        ],
    )
    def test_a_failed_open_says_why(self, folder: Path, name: str, says: str) -> None:
        error = refusal(folder / name)
        assert error.outcome is Outcome.UNAVAILABLE
        assert says in str(error)

    def test_a_named_pipe_without_a_writer_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.mp4")
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(refusal, tmp_path / "pipe.mp4").result(PATIENCE_S)
        assert error.outcome is Outcome.UNAVAILABLE
        assert "not a regular file" in str(error)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission(self, folder: Path) -> None:
        (folder / "b.mp4").chmod(0)
        assert "Permission denied" in str(refusal(folder / "b.mp4"))

    def test_the_id_is_that_of_the_name_as_given(self, folder: Path) -> None:
        (source,) = expand([str(folder / "b.mp4")]).sources
        assert source.id == clip_id_of(str(folder / "b.mp4"))


@pytest.fixture
def memory() -> Iterator[Any]:
    """An fsspec file system in memory, with two clips and a text."""
    filesystem = fsspec.filesystem("memory")
    for path in ("/bucket/a.mp4", "/bucket/sub/b.mp4", "/bucket/notes.txt"):
        filesystem.pipe(path, CONTENT)
    yield filesystem
    filesystem.rm("/bucket", recursive=True)


@pytest.mark.usefixtures("memory")
class TestUri:
    def test_an_object(self) -> None:
        assert names("memory://bucket/a.mp4") == ["memory://bucket/a.mp4"]
        assert read("memory://bucket/a.mp4") == CONTENT

    def test_a_folder_of_objects(self) -> None:
        found = expand(["memory://bucket"])
        assert [source.name for source in found.sources] == ["memory:///bucket/a.mp4"]
        assert [item.reason for item in found.skipped] == ["no media by name"]
        assert read(found.sources[0].name) == CONTENT

    def test_a_folder_of_objects_recursively(self) -> None:
        assert names("memory://bucket", recursive=True) == ["memory:///bucket/a.mp4", "memory:///bucket/sub/b.mp4"]

    def test_a_glob_of_objects(self) -> None:
        assert names("memory://bucket/*/*.mp4") == ["memory:///bucket/sub/b.mp4"]
        assert names("memory://bucket/*.mov") == ["memory://bucket/*.mov"]

    def test_a_folder_of_objects_without_media_gets_a_record(self, memory: Any) -> None:
        memory.pipe("/bucket/texts/one.txt", CONTENT)
        assert names("memory://bucket/texts") == ["memory://bucket/texts"]
        assert refusal("memory://bucket/texts").outcome is Outcome.UNAVAILABLE

    def test_a_folder_of_files(self, folder: Path) -> None:
        assert [Path(name).name for name in names(f"file://{folder}")] == ["a.MKV", "b.mp4"]

    def test_inside_an_archive(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
            archive.writestr("one.mp4", CONTENT)
            archive.writestr("notes.txt", CONTENT)
        uri = f"zip://one.mp4::{tmp_path / 'clips.zip'}"
        assert read(uri, chains=True) == CONTENT
        (inside,) = expand([f"zip://*.mp4::{tmp_path / 'clips.zip'}"], chains=True).sources
        assert read(inside.name, chains=True) == CONTENT
        assert names(uri) == [uri]
        assert "UNMASK_URI_CHAINS" in str(refusal(uri))

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("memory://bucket/missing.mp4", "FileNotFoundError"),
            ("nosuchscheme://bucket/a.mp4", "the scheme 'nosuchscheme' is not opened"),
            ("reference://bucket/a.mp4", "the scheme 'reference' is not opened"),
            ("simplecache::memory://bucket/a.mp4", "UNMASK_URI_CHAINS"),
        ],
    )
    def test_a_failed_fetch_says_why(self, uri: str, says: str) -> None:
        assert names(uri) == [uri]
        error = refusal(uri)
        assert error.outcome is Outcome.UNAVAILABLE
        assert says in str(error)

    def test_an_object_beyond_the_limit_is_refused(self) -> None:
        assert read("memory://bucket/a.mp4", max_fetch_bytes=len(CONTENT)) == CONTENT
        error = refusal("memory://bucket/a.mp4", max_fetch_bytes=len(CONTENT) - 1)
        assert error.outcome is Outcome.OVER_LIMIT
        assert f"more than {len(CONTENT) - 1} bytes" in str(error)
        assert "UNMASK_MAX_FETCH_BYTES" in str(error)


class TestHttp:
    @pytest.fixture
    def requests(self) -> list[str]:
        """The requests to the server below."""
        return []

    @pytest.fixture
    def server(self, folder: Path, requests: list[str]) -> Iterator[str]:
        """A plain web server over `folder`; like many it does not support range requests."""

        class Handler(SimpleHTTPRequestHandler):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(folder))

            def log_message(self, format: str, *arguments: Any) -> None:
                requests.append(f"{self.command} {self.path}")

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()

    def test_a_clip_is_fetched_by_one_request(self, server: str, requests: list[str]) -> None:
        uri = f"{server}/b.mp4"
        assert names(uri) == [uri]
        assert requests == []
        assert read(uri) == CONTENT
        assert requests.count("GET /b.mp4") == 1

    def test_a_clip_larger_than_a_block(self, server: str, folder: Path) -> None:
        content = os.urandom(12 << 20)
        (folder / "large.mp4").write_bytes(content)
        assert read(f"{server}/large.mp4") == content
        assert refusal(f"{server}/large.mp4", max_fetch_bytes=1 << 20).outcome is Outcome.OVER_LIMIT

    def test_a_query_is_not_a_glob(self, server: str) -> None:
        uri = f"{server}/b.mp4?token=1"
        assert names(uri) == [uri]
        assert read(uri) == CONTENT

    def test_a_file_missing_on_the_server_is_unavailable(self, server: str) -> None:
        error = refusal(f"{server}/missing.mp4")
        assert error.outcome is Outcome.UNAVAILABLE
        assert "missing.mp4" in str(error)

    def test_a_refused_connection_is_unavailable(self) -> None:
        # Port 9, discard: reserved, with no listener.
        assert refusal("http://127.0.0.1:9/clip.mp4").outcome is Outcome.UNAVAILABLE


class TestNamesLikeUris:
    """What a folder holds is a file, whatever its name says: anyone may have put it there."""

    NAMES = ("reference::x.mp4", "Rust::intro.mp4", "simplecache::http:", "http:", "a b::c.mp4")

    @pytest.fixture
    def inbox(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        for name in self.NAMES:
            if name.endswith(".mp4"):
                (tmp_path / name).write_bytes(CONTENT)
            else:
                # A path such as http://127.0.0.1/x.mp4, for which two folders are enough.
                (tmp_path / name / "127.0.0.1").mkdir(parents=True)
                (tmp_path / name / "127.0.0.1" / "x.mp4").write_bytes(CONTENT)
        return tmp_path

    @pytest.mark.parametrize("given", [".", "*", "./*"])
    def test_a_folder_and_a_glob_hold_files(self, given: str, inbox: Path) -> None:
        found = expand([given], recursive=True)
        assert len(found.sources) == len(self.NAMES)
        for source in found.sources:
            assert not source.is_remote
            with open_source(source) as opened:
                assert opened.size_bytes == len(CONTENT)

    @pytest.mark.parametrize(
        "name", ["Rust::intro.mp4", "http://127.0.0.1/x.mp4", "simplecache::http://127.0.0.1/x.mp4"]
    )
    def test_what_exists_as_a_path_is_a_path(self, name: str, inbox: Path) -> None:
        (source,) = expand([name]).sources
        assert (source.name, source.is_remote) == (name, False)
        with open_source(source) as opened:
            assert opened.size_bytes == len(CONTENT)

    def test_a_missing_name_with_colons_is_a_missing_file(self) -> None:
        (source,) = expand(["Rust::missing.mp4"]).sources
        with pytest.raises(SourceError, match="No such file"), open_source(source):
            pass


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as file:
        file.truncate(15 << 40)
    error = refusal(path)
    assert error.outcome is Outcome.OVER_LIMIT
    assert "UNMASK_MAX_FILE_BYTES" in str(error)


def test_hashing_ends_where_it_is_stopped(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as file:
        file.truncate(200 << 30)
    asked = iter([False, False, True])
    with pytest.raises(ScanInterruptedError), open_source(Source(str(path)), stop=lambda: next(asked)):
        pass


def test_paths_and_uris_are_distinguished() -> None:
    assert [is_uri(name) for name in ("clip.mp4", "/a/b.mp4", "C:clip.mp4", "a:b.mp4")] == [False] * 4
    assert [is_uri(name) for name in ("s3://a/b.mp4", "file:///a.mp4", "zip://a.mp4::/b.zip")] == [True] * 3


class TestChanges:
    """The bytes that were hashed are the bytes that were judged."""

    @pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
    def test_a_file_that_changes_while_it_is_read_is_unavailable(self, change: str, tmp_path: Path) -> None:
        path = tmp_path / "x.mp4"
        path.write_bytes(CONTENT)

        def look() -> None:
            with open_source(Source(str(path))):
                new = {"grows": CONTENT * 2, "shrinks": CONTENT[:5], "is rewritten": CONTENT[::-1]}[change]
                path.write_bytes(new)
                os.utime(path, ns=(1, 1))

        with pytest.raises(SourceError, match="changed while it was read: from 17 to") as caught:
            look()
        assert (caught.value.outcome, caught.value.transient) == (Outcome.UNAVAILABLE, True)

    def test_a_file_that_was_replaced_or_renamed_is_the_one_that_was_opened(self, tmp_path: Path) -> None:
        path = tmp_path / "x.mp4"
        path.write_bytes(CONTENT)
        with open_source(Source(str(path))) as opened:
            path.rename(tmp_path / "y.mp4")
            path.write_bytes(b"another")
        assert opened.sha256 == hashlib.sha256(CONTENT).hexdigest()

    def test_an_error_of_the_block_is_not_hidden(self, tmp_path: Path) -> None:
        path = tmp_path / "x.mp4"
        path.write_bytes(CONTENT)

        def look() -> None:
            with open_source(Source(str(path))):
                path.write_bytes(CONTENT * 2)
                raise KeyError("of the block")

        with pytest.raises(KeyError):
            look()

    def test_a_recording_is_waited_for(self, tmp_path: Path) -> None:
        path = tmp_path / "recording.ts"
        path.write_bytes(CONTENT)
        looks = 0

        def grow() -> bool:
            nonlocal looks
            looks += 1
            if looks <= 3:
                with path.open("ab") as file:
                    file.write(CONTENT)
            return False

        with open_source(Source(str(path)), SourceLimits(quiet_s=0.2), stop=grow) as opened:
            assert opened.sha256 == hashlib.sha256(CONTENT * 4).hexdigest()

    def test_waiting_for_a_recording_ends_with_the_scan(self, tmp_path: Path) -> None:
        path = tmp_path / "recording.ts"
        path.write_bytes(CONTENT)
        with (
            pytest.raises(ScanInterruptedError),
            open_source(Source(str(path)), SourceLimits(quiet_s=3600.0), stop=lambda: True),
        ):
            pass
