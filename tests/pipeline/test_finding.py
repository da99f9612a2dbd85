"""Clips in folders, globs and URIs: what is media is found by name or content, what is left out has a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.finding import MEDIA_SUFFIXES, Found, expand
from pipeline.sources import Source, SourceError, open_source
from tests.pipeline.media_folder import CONTENT, MP4, media_folder


def names(*given: str | Path, recursive: bool = False, follow_links: bool = False) -> list[str]:
    found = expand([str(name) for name in given], recursive=recursive, follow_links=follow_links)
    return [source.name for source in found.sources]


def refusal(name: str | Path) -> SourceError:
    with pytest.raises(SourceError) as caught, open_source(Source(str(name))):
        pass
    return caught.value


def reasons(found: Found, folder: Path) -> dict[str, str]:
    return {str(Path(item.name).relative_to(folder)): item.reason for item in found.skipped}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return media_folder(tmp_path / "clips")


class TestExpand:
    def test_a_name_yields_itself(self, folder: Path) -> None:
        given = [folder / "notes.txt", folder / "missing.mp4", folder / "b.mp4"]
        found = expand([str(name) for name in given])
        assert [source.name for source in found.sources] == [str(name) for name in given]
        assert found.skipped == ()

    def test_a_folder_yields_its_media_by_name_or_content(self, folder: Path) -> None:
        found = expand([str(folder)])
        assert [Path(source.name).name for source in found.sources] == ["a.MKV", "b.mp4", "camera_export"]
        assert reasons(found, folder) == {
            "README": "no media by content",
            "notes.txt": "no media by content",
            "sub": "sub-folders (--recursive)",
        }
        assert found.why_skipped() == "2 no media by content, 1 sub-folders (--recursive)"

    def test_sub_folders_only_when_asked(self, folder: Path) -> None:
        found = expand([str(folder)], recursive=True)
        inside = [str(Path(source.name).relative_to(folder)) for source in found.sources]
        assert inside == ["a.MKV", "b.mp4", "camera_export", "sub/c.webm", "sub/deep/d.png"]
        assert len(found.skipped) == 3

    def test_an_empty_folder_yields_nothing(self, tmp_path: Path) -> None:
        assert expand([str(tmp_path)]) == expand([])

    def test_a_folder_named_like_a_clip_gets_a_record(self, tmp_path: Path) -> None:
        (tmp_path / "x.mp4").mkdir()
        (tmp_path / "x.mp4" / "inside.mp4").write_bytes(CONTENT)
        assert names(tmp_path / "x.mp4") == [str(tmp_path / "x.mp4")]
        assert names(f"{tmp_path / 'x.mp4'}/") == [str(tmp_path / "x.mp4" / "inside.mp4")]

    def test_globs(self, folder: Path) -> None:
        assert names(folder / "*.mp4") == [str(folder / "b.mp4")]
        assert names(folder / "**" / "*.webm") == [str(folder / "sub" / "c.webm")]
        assert names(folder / "*.avi") == [str(folder / "*.avi")]
        assert names(folder / "s*") == []
        assert names(folder / "s*", recursive=True) == [
            str(folder / "sub" / "c.webm"), str(folder / "sub" / "deep" / "d.png")
        ]  # fmt: skip

    def test_a_file_that_looks_like_a_glob_is_that_file(self, folder: Path) -> None:
        odd = folder / "take[1].mp4"
        odd.write_bytes(CONTENT)
        (folder / "take1.mp4").write_bytes(CONTENT)
        assert names(odd) == [str(odd)]

    def test_each_clip_once_in_the_order_named(self, folder: Path) -> None:
        assert [Path(name).name for name in names(folder / "b.mp4", folder, folder / "b.mp4")] == [
            "b.mp4", "a.MKV", "camera_export"
        ]  # fmt: skip

    def test_special_files_in_a_folder_are_left_out(self, folder: Path) -> None:
        os.mkfifo(folder / "pipe.mp4")
        (folder / "dangling.mp4").symlink_to("nowhere")
        found = expand([str(folder)])
        assert [Path(source.name).name for source in found.sources] == ["a.MKV", "b.mp4", "camera_export"]
        assert reasons(found, folder)["pipe.mp4"] == "pipes, sockets or devices"
        assert reasons(found, folder)["dangling.mp4"] == "links to nothing"

    def test_links_to_folders_are_named_or_followed_once(self, folder: Path, tmp_path: Path) -> None:
        real = tmp_path / "real"
        real.mkdir()
        (real / "e.mp4").write_bytes(CONTENT)
        (real / "back").symlink_to(folder)
        (folder / "linked").symlink_to(real)
        (folder / "sub" / "again").symlink_to(real)
        found = expand([str(folder)], recursive=True)
        assert reasons(found, folder)["linked"] == "linked folders (--follow-links)"
        followed = expand([str(folder)], recursive=True, follow_links=True)
        assert [str(Path(source.name).relative_to(folder)) for source in followed.sources] == [
            "a.MKV", "b.mp4", "camera_export", "linked/e.mp4", "sub/c.webm", "sub/deep/d.png"
        ]  # fmt: skip
        again = reasons(followed, folder)
        assert again["linked/back"] == again["sub/again"] == "links to a folder that was read already"

    def test_a_file_may_be_a_link(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "elsewhere.mp4").write_bytes(CONTENT)
        (folder / "z.mp4").symlink_to(tmp_path / "elsewhere.mp4")
        assert names(folder)[-1] == str(folder / "z.mp4")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_sub_folder_without_permission_gets_a_record(self, folder: Path) -> None:
        (folder / "sub").chmod(0)
        assert str(folder / "sub") in names(folder, recursive=True)
        (folder / "sub").chmod(0o755)

    def test_a_sub_folder_that_cannot_be_read_gets_a_record(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As for a user without permission."""
        scandir = os.scandir

        def forbidding(path: str) -> os._ScandirIterator[str]:
            if str(path).endswith("deep"):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr("pipeline.finding.os.scandir", forbidding)
        assert names(folder, recursive=True)[-1] == str(folder / "sub" / "deep")

    @pytest.mark.parametrize(
        "name",
        [
            "Recording 2024-01-01 12.30.45", "IMG_1234.mp4.1", "clip.mp4?dl=1", "video.mp4 (copy)", "x.part", ".hidden",
        ],
    )  # fmt: skip
    def test_media_under_an_odd_name_is_found_by_content(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(MP4)
        assert names(tmp_path) == [str(tmp_path / name)]

    @pytest.mark.parametrize("name", ["x.f4v", "pic.jfif", "p.avif", "IMG_1.heic", "IMG_1.HEIF", "a.apng"])
    def test_media_is_found_by_suffix(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(CONTENT)
        assert names(tmp_path) == [str(tmp_path / name)]

    def test_what_only_looks_like_media_is_left_out_with_a_reason(self, tmp_path: Path) -> None:
        (tmp_path / "song.m4a").write_bytes(MP4)
        (tmp_path / "song").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(20))
        (tmp_path / "._clip.mp4").write_bytes(b"\0\x05\x16\x07" + bytes(80))
        (tmp_path / "._odd.mp4").write_bytes(MP4)
        (tmp_path / "list.m3u8").write_bytes(b"#EXTM3U")
        found = expand([str(tmp_path)])
        assert [Path(source.name).name for source in found.sources] == ["._odd.mp4"]
        assert reasons(found, tmp_path) == {
            "song.m4a": "sound or playlists",
            "song": "sound or raw pictures",
            "._clip.mp4": "attributes of macOS (AppleDouble)",
            "list.m3u8": "sound or playlists",
        }

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_folder_without_permission_gets_a_record(self, folder: Path) -> None:
        (folder / "sub").chmod(0)
        assert names(folder / "sub") == [str(folder / "sub")]
        assert "Permission denied" in str(refusal(folder / "sub"))
        (folder / "sub").chmod(0o755)

    def test_a_name_longer_than_any_file_system_takes(self) -> None:
        assert names("x" * 5000) == ["x" * 5000]

    @pytest.mark.parametrize(
        "start",
        [
            MP4,
            b"\x1a\x45\xdf\xa3" + bytes(40),
            b"RIFF\0\0\0\0AVI LIST",
            b"\xff\xd8\xff\xe0",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBPVP8 ",
            (b"\x47" + bytes(187)) * 2,
            (bytes(4) + b"\x47" + bytes(187)) * 2,
            b"\0\0\0\1\x67\x42" + bytes(40),
            b"\0\0\0\1\x40\x01" + bytes(40),
            b"YUV4MPEG2 W16 H16 F25:1",
            b"\0\0\0\x20ftypheic" + bytes(20),
        ],
    )
    def test_media_without_an_extension(self, tmp_path: Path, start: bytes) -> None:
        (tmp_path / "file").write_bytes(start)
        assert names(tmp_path) == [str(tmp_path / "file")]

    @given(st.binary(max_size=500))
    def test_any_content_can_be_sniffed(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        folder = tmp_path_factory.mktemp("content")
        (folder / "file").write_bytes(content)
        found = expand([str(folder)])
        assert len(found.sources) + len(found.skipped) == 1


def test_the_media_suffixes_are_lower_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in MEDIA_SUFFIXES)
