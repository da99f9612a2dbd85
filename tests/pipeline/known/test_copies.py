"""Prints of real files: re-encodes are found, other clips are not, and a scan makes the same print."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.first_print import print_of
from pipeline.known.matching import compare
from pipeline.sources import ScanInterruptedError, Source
from pipeline.video.sandbox import DecodeServer
from tests import media
from tests.e2e.known_media import CHANGES, re_encode


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("known") / "original.mp4"
    media.make_clip(path, seconds=3, seed=11)
    return path


def source(path: Path) -> Source:
    return Source(str(path), is_path=True)


# All four changes at once are found or not by how much structure they move, see docs/benchmarks.md.
@pytest.mark.parametrize("name", [name for name in CHANGES if name != "all four"])
def test_a_re_encode_is_a_copy(name: str, original: Path, tmp_path: Path, decode_server: DecodeServer) -> None:
    change, crf = CHANGES[name]
    re_encode(original, tmp_path / "copy.mp4", change, crf)
    match = compare(print_of(source(tmp_path / "copy.mp4"), decode_server), print_of(source(original), decode_server))
    assert match is not None
    assert match.is_copy


def test_another_clip_has_nothing_in_common(original: Path, tmp_path: Path, decode_server: DecodeServer) -> None:
    media.make_clip(tmp_path / "other.mp4", seconds=2, seed=12, size=(480, 480))
    other = print_of(source(tmp_path / "other.mp4"), decode_server)
    assert len(other) == 2
    assert compare(other, print_of(source(original), decode_server)) is None


def test_what_cannot_be_read_has_no_print(tmp_path: Path, decode_server: DecodeServer) -> None:
    (broken := tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    assert not len(print_of(source(broken), decode_server))
    assert not len(print_of(source(tmp_path / "absent.mp4"), decode_server))


def test_it_ends_when_it_is_asked_to(original: Path, decode_server: DecodeServer) -> None:
    with pytest.raises(ScanInterruptedError):
        print_of(source(original), decode_server, stop=lambda: True)
