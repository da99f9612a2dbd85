"""Which URIs a task may make a worker read."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path

import pytest

from pipeline.contracts import Outcome
from pipeline.sources import SourceError
from pipeline.worker import access
from pipeline.worker.access import UriAllow


def allowed(allow: str, uri: str) -> bool:
    try:
        UriAllow.parse(allow).check(uri)
    except SourceError:
        return False
    return True


def test_a_refused_uri_is_unavailable_and_names_the_setting() -> None:
    with pytest.raises(SourceError, match="UNMASK_URI_ALLOW") as refused:
        UriAllow.parse("s3").check("/srv/a.mp4")
    assert refused.value.outcome is Outcome.UNAVAILABLE


@pytest.mark.parametrize("uri", ["/srv/a.mp4", "file:///srv/a.mp4", "file:///srv/a b%20.mp4"])
def test_the_root_folder_allows_all_files(uri: str) -> None:
    assert allowed("/", uri)


@pytest.mark.parametrize(
    "uri",
    [
        "http://169.254.169.254/latest/meta-data",
        "s3://bucket/a.mp4",
        "local:///etc/passwd",
        "srv/a.mp4",
        "file:srv/a.mp4",
        "file://srv/a.mp4",
        "zip://a.mp4::file:///srv/a.zip",
        "zip://a.mp4::http://inside/a.zip",
        "",
    ],
)
def test_a_folder_allows_no_other_schemes(uri: str) -> None:
    assert not allowed("/", uri)


def test_colons_in_a_path_do_not_make_a_chain(tmp_path: Path) -> None:
    assert allowed(str(tmp_path), f"{tmp_path}/a::b.mp4")
    assert not allowed(str(tmp_path), f"zip://{tmp_path}::/etc/a.zip")


def test_dots_and_links_do_not_lead_out_of_a_root(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    (tmp_path / "secret.mp4").touch()
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "inside.mp4").symlink_to(root / "a.mp4")
    allow = f"file://{root}"
    assert allowed(allow, f"{root}/a.mp4")
    assert allowed(str(root), f"{root}/a.mp4")
    assert allowed(allow, f"file://{root}/deep/a.mp4")
    assert allowed(allow, f"{root}/inside.mp4")
    assert not allowed(allow, f"{root}/../secret.mp4")
    assert not allowed(allow, f"{root}/link.mp4")
    assert not allowed(allow, f"{root}-other/a.mp4")
    assert not allowed(allow, "/etc/passwd")


def test_a_root_that_is_a_link_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert allowed(f"file://{tmp_path}/link", f"{tmp_path}/link/a.mp4")
    assert allowed(f"file://{tmp_path}/link", f"{tmp_path}/real/a.mp4")


@pytest.mark.parametrize(
    ("uri", "may"),
    [
        ("https://media.example.org/a.mp4", True),
        ("https://MEDIA.example.org/a.mp4", True),
        ("https://media.example.org.evil.org/a.mp4", False),
        ("https://media.example.org@evil.org/a.mp4", False),
        ("https://media.example.org:8443/a.mp4", False),
        ("http://media.example.org/a.mp4", False),
        ("s3://bucket/inbox/2026/a.mp4", True),
        ("s3://bucket/inbox", True),
        ("s3://bucket/inbox2/a.mp4", False),
        ("s3://bucket/inbox/../secret/a.mp4", False),
        ("s3://bucket/inbox/%2e%2e/secret/a.mp4", False),
        ("s3://other/inbox/a.mp4", False),
        ("zip://a.mp4::s3://bucket/inbox/a.zip", True),
        ("zip://a.mp4::s3://other/a.zip", False),
    ],
)
def test_a_root_allows_its_host_and_path_only(uri: str, may: bool) -> None:
    assert allowed("https://media.example.org, s3://bucket/inbox/, zip", uri) is may


def test_a_scheme_that_is_never_opened_is_a_typo() -> None:
    with pytest.raises(ValueError, match="'htps' is no scheme that is opened"):
        UriAllow.parse("htps")


def test_a_root_may_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    allow = UriAllow.parse(str(tmp_path / "a.mp4"))
    descriptor = allow.open_file(str(tmp_path / "a.mp4"))
    assert os.read(descriptor, 9) == b"a"
    os.close(descriptor)
    with pytest.raises(SourceError):
        allow.open_file(str(tmp_path / "b.mp4"))


def test_an_empty_list_allows_nothing() -> None:
    assert not allowed("", "/srv/a.mp4")


@pytest.mark.parametrize("entry", ["file://srv/videos", "://x", "FILE", "s3://", "file", "http:///x"])
def test_an_invalid_entry_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match=r"expected a (scheme|folder)"):
        UriAllow.parse(entry)


class TestOpenFile:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "videos" / "deep").mkdir(parents=True)
        (tmp_path / "videos" / "deep" / "a.mp4").write_bytes(b"inside")
        (tmp_path / "secret.mp4").write_bytes(b"secret")
        return tmp_path / "videos"

    @staticmethod
    def content(root: Path, path: Path | str) -> bytes:
        fd = UriAllow.parse(str(root)).open_file(str(path))
        with os.fdopen(fd, "rb") as file:
            return file.read()

    @pytest.fixture(params=["openat2", "old kernel"])
    def _both_ways(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "old kernel":
            monkeypatch.setattr(access, "_OPENAT2", 100_000)

    @pytest.mark.usefixtures("_both_ways")
    def test_files_and_links_below_a_root_are_opened(self, root: Path) -> None:
        (root / "link.mp4").symlink_to(root / "deep" / "a.mp4")
        (root / "folder").symlink_to(root / "deep")
        for path in ("deep/a.mp4", "link.mp4", "folder/a.mp4", "deep/../deep/a.mp4"):
            assert self.content(root, root / path) == b"inside"
        with pytest.raises(FileNotFoundError):
            self.content(root, root / "deep" / "missing.mp4")

    @pytest.mark.usefixtures("_both_ways")
    def test_what_is_outside_is_refused(self, root: Path) -> None:
        (root / "out.mp4").symlink_to(root.parent / "secret.mp4")
        for path in (root / "out.mp4", root / ".." / "secret.mp4", root.parent / "secret.mp4", "/proc/self/fd/0"):
            with pytest.raises(SourceError, match="UNMASK_URI_ALLOW"):
                self.content(root, path)

    @pytest.mark.usefixtures("_both_ways")
    @pytest.mark.parametrize("swapped", ["deep", "deep/a.mp4"])
    def test_a_link_that_appears_after_the_check_leads_nowhere(
        self, swapped: str, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What an attacker who may write below the root tries: a file or folder becomes a link in between."""
        outside = root.parent / "outside"
        outside.mkdir()
        (outside / "a.mp4").write_bytes(b"secret")
        checked = os.path.realpath

        def check_then_swap(path: str) -> str:
            real = checked(path)
            if path.endswith("a.mp4"):
                (root / swapped).rename(root / "gone")
                (root / swapped).symlink_to(outside / "a.mp4" if swapped.endswith("mp4") else outside)
            return real

        allow = UriAllow.parse(str(root))
        monkeypatch.setattr(os.path, "realpath", check_then_swap)
        with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
            os.close(allow.open_file(str(root / "deep" / "a.mp4")))


@pytest.mark.parametrize(
    ("allow", "uri", "address", "may"),
    [
        ("https", "https://a.example.org/a.mp4", "93.184.216.34", True),
        ("https", "https://a.example.org/a.mp4", "2606:2800:220:1::1", True),
        ("https", "https://a.example.org/a.mp4", "10.0.0.5", False),
        ("https", "https://a.example.org/a.mp4", "127.0.0.1", False),
        ("https", "https://a.example.org/a.mp4", "0.0.0.0", False),
        ("https", "https://a.example.org/a.mp4", "169.254.169.254", False),
        ("https", "https://a.example.org/a.mp4", "100.64.0.1", False),
        ("https", "https://a.example.org/a.mp4", "224.0.0.1", False),
        ("https", "https://a.example.org/a.mp4", "::1", False),
        ("https", "https://a.example.org/a.mp4", "fd00:ec2::254", False),
        ("https", "https://a.example.org/a.mp4", "::ffff:127.0.0.1", False),
        ("https", "https://a.example.org/a.mp4", "64:ff9b::7f00:1", False),
        ("https", "https://a.example.org/a.mp4", "2002:7f00:1::1", False),
        ("https://intranet/videos", "https://intranet/videos/a.mp4", "10.0.0.5", True),
        ("https://intranet/videos", "https://other/videos/a.mp4", "10.0.0.5", False),
        ("https,https://intranet/videos", "https://intranet/secret/a.mp4", "10.0.0.5", False),
        ("https,https://intranet/videos", "https://intranet/videos/a.mp4", "10.0.0.5", True),
        ("https://intranet/videos", "https://intranet/videos/a.mp4", "169.254.169.254", False),
        ("http://169.254.169.254", "http://169.254.169.254/a", "169.254.169.254", True),
    ],
)
def test_private_addresses_are_for_hosts_that_are_named(allow: str, uri: str, address: str, may: bool) -> None:
    assert UriAllow.parse(allow).allows_address(uri, ipaddress.ip_address(address)) is may
