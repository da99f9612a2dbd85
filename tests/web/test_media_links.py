"""Where workers find uploaded files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest

from pipeline.settings import Settings
from web.media import Media
from web.media_folder import MediaFolder
from web.media_links import PlaceError, SharedFolder, SignedAddresses, places_of
from web.signing import Signer
from web.tasks import TASK_S

ID = "0123456789abcdef01234567"


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path / "signing.key")


def test_an_address_opens_its_file_for_as_long_as_kafka_keeps_the_task(signer: Signer, tmp_path: Path) -> None:
    now_s = [1000.0]
    places = SignedAddresses("https://unmask.example.org", signer, clock=lambda: now_s[0])
    address = urlsplit(places.uri(ID))
    assert (address.netloc, address.path) == ("unmask.example.org", f"/v1/tasks/{ID}/media")
    query = parse_qs(address.query)
    until, signature = int(query["until"][0]), query["signature"][0]
    assert places.is_valid(ID, until, signature)
    assert not places.is_valid(ID[::-1], until, signature)
    assert not places.is_valid(ID, until + 1, signature)
    assert not any(places.is_valid(ID, until, text) for text in ("", "é", "AAAA", signature[:-4]))
    other = SignedAddresses("https://unmask.example.org", Signer(tmp_path / "other.key"), clock=lambda: now_s[0])
    assert not other.is_valid(ID, until, signature)
    now_s[0] += TASK_S
    assert places.is_valid(ID, until, signature)
    now_s[0] += 1
    assert not places.is_valid(ID, until, signature)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, f"{{folder}}/01/{ID}"),
        ({"serve_media": "/srv/media"}, f"/srv/media/01/{ID}"),
        ({"serve_media": "file:///srv/media/", "serve_url": "https://a.example.org"}, f"/srv/media/01/{ID}"),
    ],
)
def test_a_shared_folder_may_have_another_path_for_workers(
    signer: Signer, tmp_path: Path, settings: dict[str, str], expected: str
) -> None:
    folder = tmp_path / "media"
    places = places_of(Settings(**settings), MediaFolder(folder), signer)
    assert isinstance(places, SharedFolder)
    assert places.uri(ID) == expected.format(folder=folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"serve_media": "media"},
        {"serve_media": "s3://bucket/media"},
        {"serve_url": "unmask.example.org"},
        {"serve_url": "ftp://unmask.example.org"},
        {"serve_url": "https://unmask.example.org/?a=b"},
    ],
)
def test_places_that_no_worker_could_read_are_refused(signer: Signer, tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(PlaceError, match="UNMASK_SERVE_"):
        places_of(Settings(**settings), MediaFolder(tmp_path / "media"), signer)


@pytest.mark.parametrize(
    ("base", "settings", "expected"),
    [
        ("s3://bucket/prefix", {}, f"s3://bucket/prefix/01/{ID}"),
        ("s3://bucket/prefix", {"serve_media": "/srv/media"}, "UNMASK_SERVE_MEDIA names a folder"),
        ("sftp://me:s3cret@host/uploads", {}, "has a password.*UNMASK_SERVE_URL"),
        ("shelf:///srv", {}, "workers cannot read.*UNMASK_SERVE_URL"),
    ],
)
def test_workers_get_uris_of_a_store_that_they_can_read(
    signer: Signer, base: str, settings: dict[str, str], expected: str
) -> None:
    stored = cast(Media, SimpleNamespace(base=base))
    if expected.startswith("s3:"):
        assert places_of(Settings(**settings), stored, signer).uri(ID) == expected
        return
    with pytest.raises(PlaceError, match=expected) as refused:
        places_of(Settings(**settings), stored, signer)
    assert "s3cret" not in str(refused.value)
    assert (
        places_of(Settings(serve_url="https://a.example.org"), stored, signer).uri(ID).startswith("https://a.example")
    )
