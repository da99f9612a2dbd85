"""From the user's arguments to clips: files, folders, globs and URIs; what is left out is named with its reason."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.sources import HTTP, OPEN_FLAGS, Source, check_uri, is_uri

# Containers and pictures in the reader's allow-list of demuxers.
_CONTAINERS = "mp4 m4v mov qt 3gp 3g2 mkv webm avi ts mts m2ts mpg mpeg vob flv f4v wmv asf ogv ogg mxf nut"
_PICTURES = "gif jpg jpeg jfif png apng webp bmp tif tiff heic heif avif"
MEDIA_SUFFIXES = frozenset(f".{name}" for name in f"{_CONTAINERS} {_PICTURES}".split())
# Sound in a container that may hold video; lists that name other files.
_OTHER_SUFFIXES = frozenset({".m4a", ".m4b", ".m4p", ".m4r", ".mka", ".wma", ".oga", ".opus", ".spx", ".m3u8", ".mpd"})
# The magic numbers of media under other names: (offset, magic).
_MAGIC = (
    (4, b"ftyp"),  # MP4, MOV, HEIC, AVIF
    (4, b"moov"),  # old QuickTime
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (8, b"AVI "),
    (0, b"FLV\x01"),
    (0, b"OggS"),
    (0, b"\x00\x00\x01\xba"),  # MPEG program stream
    (0, b"\x00\x00\x01\xb3"),  # MPEG-1 and MPEG-2 video
    (0, b"\x30\x26\xb2\x75"),  # ASF
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01"),  # MXF
    (0, b"DKIF"),  # IVF
    (0, b"nut/multimedia container"),
    (0, b"YUV4MPEG2"),
    (0, b"GIF8"),
    (0, b"\xff\xd8\xff"),  # JPEG
    (0, b"\x89PNG"),
    (8, b"WEBP"),
)
# Start codes of H.264 (sequence parameters, access unit delimiter) and HEVC (video parameters, delimiter).
_ANNEX_B = tuple(
    start + unit
    for start in (b"\x00\x00\x01", b"\x00\x00\x00\x01")
    for unit in (b"\x67", b"\x27", b"\x09", b"\x40\x01", b"\x46\x01")
)
# Brands of MP4 that hold sound, or raw pictures that libav does not read.
_OTHER_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B ", b"crx "})
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
_MPEG_TS_PACKET_BYTES = 188
# A packet of M2TS has a time stamp of four bytes before it.
_MPEG_TS_STEPS = ((0, _MPEG_TS_PACKET_BYTES), (4, _MPEG_TS_PACKET_BYTES + 4))


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was left out of a folder, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What `expand` found: the clips, each once, in the order named, and what was left out."""

    sources: tuple[Source, ...]
    skipped: tuple[Skipped, ...] = ()

    def why_skipped(self) -> str:
        """The number of what was left out for each reason, the most frequent first; "" if nothing was."""
        reasons = Counter(item.reason for item in self.skipped)
        return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())


def expand(names: Sequence[str], *, recursive: bool = False, follow_links: bool = False, chains: bool = False) -> Found:
    """The clips behind paths, folders, globs and URIs.

    A folder yields its media files (by extension, else by content), with `recursive` those of its sub-folders too. Any
    other name yields itself, so that it gets a record even if it is missing; so do a folder that cannot be read and one
    with a clip's extension. What exists as a path, and what a folder or a glob holds, is a path, even if it looks
    like a URI.

    Args:
        names: as given.
        recursive: include sub-folders.
        follow_links: include linked sub-folders, each folder once.
        chains: expand chains of URIs, too.
    """
    walk = _Walk(recursive, follow_links)
    for name in names:
        if not is_uri(name) or os.path.lexists(name):
            walk.path(name)
        else:
            walk.uri(name, chains)
    return Found(tuple(walk.sources.values()), tuple(walk.skipped.values()))


class _Walk:
    """Collects what the names hold."""

    def __init__(self, recursive: bool, follow_links: bool) -> None:
        self.recursive, self.follow_links = recursive, follow_links
        self.sources: dict[str, Source] = {}
        self.skipped: dict[str, Skipped] = {}

    def path(self, name: str) -> None:
        # os.path, not pathlib: a name that is too long, or in an unreadable folder, just does not exist.
        if os.path.isdir(name) and (name.endswith(os.sep) or Path(name).suffix.lower() not in MEDIA_SUFFIXES):  # noqa: PTH112
            self.folder(str(Path(name)))
        elif glob.has_magic(name) and not os.path.exists(name):  # noqa: PTH110
            matches = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - the pattern may be absolute
            for match in matches or [name]:
                if matches and not self.recursive and Path(match).is_dir():
                    self.skip(match, "sub-folders (--recursive)")
                elif matches:
                    self.path(match)
                else:
                    self.take(match)
        else:
            self.take(name)

    def folder(self, folder: str) -> None:
        """Its files, then, with `recursive`, its sub-folders in their order, all depth first."""
        visited: set[tuple[int, int]] = set()
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            try:
                status = os.stat(place)  # noqa: PTH116 - a name of any bytes
                with os.scandir(place) as entries:
                    inside = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                # Opening it fails for the same reason, which goes into its record.
                self.take(place)
                continue
            if (status.st_dev, status.st_ino) in visited:
                self.skip(place, "links to a folder that was read already")
                continue
            visited.add((status.st_dev, status.st_ino))
            folders = [entry.path for entry in inside if not self.entry(entry)]
            waiting += reversed(folders)

    def entry(self, entry: os.DirEntry[str]) -> bool:
        """Take or skip what is in a folder; False for a sub-folder that is to be read."""
        link = entry.is_symlink()
        try:
            is_dir, is_file = entry.is_dir(), entry.is_file()
        except OSError as error:
            self.skip(entry.path, f"unreadable ({error.strerror})")
            return True
        if is_dir:
            if not self.recursive:
                self.skip(entry.path, "sub-folders (--recursive)")
            elif link and not self.follow_links:
                self.skip(entry.path, "linked folders (--follow-links)")
            else:
                return False
        elif not is_file:
            self.skip(entry.path, "links to nothing" if link else "pipes, sockets or devices")
        elif reason := _why_no_media(entry.path):
            self.skip(entry.path, reason)
        else:
            self.take(str(Path(entry.path)))  # without ./
        return True

    def uri(self, uri: str, chains: bool) -> None:
        import fsspec

        if uri.startswith(HTTP):
            # A web server lists nothing, and its queries look like globs.
            self.take(uri, is_path=False)
            return
        try:
            check_uri(uri, chains=chains)
            filesystem, path = fsspec.core.url_to_fs(uri)
            if glob.has_magic(path):
                inside = sorted(item for item in filesystem.glob(path) if filesystem.isfile(item))
            elif Path(path).suffix.lower() not in MEDIA_SUFFIXES and filesystem.isdir(path):
                inside = sorted(filesystem.find(path, maxdepth=None if self.recursive else 1))
            else:
                inside = []
        except Exception:  # noqa: BLE001 - plug-in file systems raise anything; opening it reports the same in a record
            inside = []
        if not any(_has_media_suffix(item) for item in inside):
            self.take(uri, is_path=False)
            return
        chain = uri.split("::", 1)[1:]
        for item in inside:
            name = "::".join([filesystem.unstrip_protocol(item), *chain])
            if _has_media_suffix(item):
                self.take(name, is_path=False)
            else:
                self.skip(name, "no media by name")

    def take(self, name: str, *, is_path: bool = True) -> None:
        self.sources.setdefault(name, Source(name, is_path=is_path))

    def skip(self, name: str, reason: str) -> None:
        self.skipped.setdefault(name, Skipped(name, reason))


def _has_media_suffix(name: str) -> bool:
    return Path(name).suffix.lower() in MEDIA_SUFFIXES


def _why_no_media(path: str) -> str | None:
    """Why a file is left out; None for media."""
    name = Path(path)
    if name.suffix.lower() in _OTHER_SUFFIXES:
        return "sound or playlists"
    if _has_media_suffix(path) and not name.name.startswith("._"):
        return None
    try:
        descriptor = os.open(path, OPEN_FLAGS)
        try:
            start = os.read(descriptor, 3 * _MPEG_TS_PACKET_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Named directly, it would get a record.
        return f"unreadable ({error.strerror})"
    if start.startswith(_APPLE_DOUBLE):
        return "attributes of macOS (AppleDouble)"
    if _has_media_suffix(path):
        return None
    if start[4:8] == b"ftyp" and start[8:12] in _OTHER_BRANDS:
        return "sound or raw pictures"
    return None if _is_media(start) else "no media by content"


def _is_media(start: bytes) -> bool:
    if any(start[offset : offset + len(magic)] == magic for offset, magic in _MAGIC):
        return True
    if start.startswith(_ANNEX_B):
        return True
    return any(
        len(start) > offset + step and start[offset] == start[offset + step] == 0x47 for offset, step in _MPEG_TS_STEPS
    )
