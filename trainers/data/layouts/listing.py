"""The contents of a data set on disk: one typed row per source video, for any folder layout."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from models.errors import UnmaskError
from trainers.data.layouts.splits import Shares
from trainers.data.manifest import REAL

VIDEO_SUFFIXES = frozenset([".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"])
IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"])
Compression = Literal["raw", "c23", "c40"]


class LayoutError(UnmaskError, ValueError):
    """A folder does not have its data set's layout; the message says what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """One video of a data set.

    Attributes:
        path: a video file, a picture, or a folder of frames.
        label: 0 real, 1 fake.
        split: train, val, test ...
        group: must not be in two splits: the identity, or the pair of them, or the original video.
        source_video: its name, unique within the set and, by its prefix, across sets.
        method: how it was forged; empty for a real one.
        dataset: name of the set.
        original: `source_video` of the real video that it was made from; empty for reals or if it is not in the set.
        certainty: see `trainers.data.manifest.Manifest`.
    """

    path: Path
    label: int
    split: str
    group: str
    source_video: str
    method: str
    dataset: str
    original: str = ""
    certainty: float = 1.0


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """What to read from a set.

    Attributes:
        compression: for FaceForensics++.
        methods: forgery methods to read; all if empty.
        shares: for splits that the set does not define.
        official: use the set's own splits; else split all of it by a hash of the identity.
        split: put everything into this one split, for a set used only for evaluation.
        dataset: name of the set, instead of the layout's own.
        all_real: the folder layout labels everything as real, whatever the names of sub-folders.
    """

    compression: Compression = "c23"
    methods: tuple[str, ...] = ()
    shares: Shares = field(default_factory=Shares)
    official: bool = True
    split: str | None = None
    dataset: str | None = None
    all_real: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """The videos of a set in a fixed order, and the number left out.

    Attributes:
        layout: name of its reader.
        root: its folder.
        videos: sorted by name.
        dropped: videos that could not be placed, by reason.
    """

    layout: str
    root: Path
    videos: tuple[SourceVideo, ...]
    dropped: Mapping[str, int]

    @classmethod
    def of(cls, layout: str, root: Path, videos: Iterable[SourceVideo], dropped: Mapping[str, int]) -> Listing:
        """Sort the videos; a fake whose original is not among them has `original` cleared.

        Raises:
            LayoutError: two videos have the same name, or a name is not UTF-8, which a manifest could not hold.
        """
        named: dict[str, SourceVideo] = {}
        for video in videos:
            if any("\ud800" <= sign <= "\udfff" for sign in video.source_video):
                raise LayoutError(f"{str(video.path)!r}: the name is not UTF-8; rename it")
            if (other := named.setdefault(video.source_video, video)) is not video:
                raise LayoutError(f"two videos have the name {video.source_video}: {other.path} and {video.path}")
        reals = {name for name, video in named.items() if video.label == REAL}
        linked = [video if video.original in reals else replace(video, original="") for video in named.values()]
        return cls(layout, root, tuple(sorted(linked, key=lambda video: video.source_video)), dict(dropped))

    def place_of(self, video: SourceVideo) -> str:
        """A video's path relative to the root, if it is inside."""
        return str(video.path.relative_to(self.root) if video.path.is_relative_to(self.root) else video.path)

    @property
    def sha256(self) -> str:
        """sha256 over all rows, with paths relative to the root: equal for listings of the same videos."""
        rows = (
            "\0".join(
                (
                    str(v.path.relative_to(self.root)),
                    str(v.label),
                    v.split,
                    v.group,
                    v.source_video,
                    v.method,
                    v.original,
                )
            )
            for v in self.videos
        )
        return hashlib.sha256("\n".join(rows).encode("utf-8", "surrogateescape")).hexdigest()


def clip_name(path: Path) -> str:
    """Name of a clip, without the suffix of a file."""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES else path.name


def is_picture(path: Path | str) -> bool:
    """Whether a path has a picture's suffix."""
    return os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a hundred thousand names


def is_video(path: Path | str) -> bool:
    """Whether a path has a video's suffix."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES  # noqa: PTH122


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a frame folder, by the numbers in their names, then by the names."""

    def key(path: Path) -> tuple[list[int], str]:
        return [int(number) for number in re.findall(r"\d+", path.stem)], path.name

    return sorted((path for path in folder.iterdir() if is_picture(path)), key=key)


def clips_in(folder: Path) -> list[Path]:
    """Videos, and folders of frames, directly in a folder, else in its sub-folder `videos`, else in `frames`.

    Raises:
        LayoutError: the folder does not exist.
    """
    expect_folder(folder)
    for place in (folder, folder / "videos", folder / "frames"):
        if place.is_dir() and (found := [path for path in sorted(place.iterdir()) if _is_clip(path)]):
            return found
    return []


def _is_clip(path: Path) -> bool:
    if path.name in ("videos", "frames"):
        return False
    return is_video(path) or (not path.suffix and path.is_dir() and _holds_pictures(path))


def _holds_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(is_picture(entry.name) for entry in entries)


def walk_clips(root: Path, structural: Iterable[str], skipped: Iterable[str] = ()) -> Iterator[Path]:
    """All videos, frame folders and single pictures in a folder tree, in a fixed order.

    A folder that holds pictures is a clip, unless its name is one of the structural folders: then each
    picture in it is a separate clip. A folder `frames` next to `videos` has the frames of the same clips.

    Args:
        root: start folder; itself structural.
        structural: names of folders, in lower case.
        skipped: names of folders to skip, in lower case.
    """
    structural, skipped = frozenset(structural), frozenset(skipped)
    for folder, inner, files in os.walk(root):
        here = Path(folder)
        inner[:] = sorted(name for name in inner if name.lower() not in skipped and not name.startswith("."))
        if "videos" in inner and "frames" in inner:
            inner.remove("frames")
        files.sort()
        yield from (here / name for name in files if is_video(name) and not name.startswith("."))
        pictures = [name for name in files if is_picture(name) and not name.startswith(".")]
        if here == root or here.name.lower() in structural:
            yield from (here / name for name in pictures)
        elif pictures:
            yield here


def expect_folder(path: Path) -> Path:
    """The folder.

    Raises:
        LayoutError: it does not exist; the message says what does.
    """
    if not path.is_dir():
        raise LayoutError(f"expected the folder {path}; {what_is_in(path.parent)}")
    return path


def expect_file(path: Path) -> Path:
    """The file.

    Raises:
        LayoutError: it does not exist; the message says what does.
    """
    if not path.is_file():
        raise LayoutError(f"expected the file {path}; {what_is_in(path.parent)}")
    return path


def what_is_in(folder: Path, at_most: int = 8) -> str:
    """The contents of a folder, as text."""
    if not folder.is_dir():
        return f"{folder} is {'a file' if folder.exists() else 'missing too'}"
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir())
    if not names:
        return f"{folder} is empty"
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return f"{folder} holds {', '.join(names[:at_most])}{more}"
