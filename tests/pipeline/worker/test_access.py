"""Which URIs a task may make a worker read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts import Outcome
from pipeline.sources import SourceError
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
def test_files_are_allowed_by_default(uri: str) -> None:
    assert allowed("file", uri)


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
def test_other_schemes_are_refused_by_default(uri: str) -> None:
    assert not allowed("file", uri)


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


def test_an_empty_list_allows_nothing() -> None:
    assert not allowed("", "/srv/a.mp4")


@pytest.mark.parametrize("entry", ["file://srv/videos", "://x", "FILE", "s3://"])
def test_an_invalid_entry_is_an_error(entry: str) -> None:
    with pytest.raises(ValueError, match="expected a scheme"):
        UriAllow.parse(entry)
