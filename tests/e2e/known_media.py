"""How many re-encodes of clips are found by their prints, and how many pairs of different clips are taken for the same.

python -m tests.e2e.known_media CLIPS... [--truth labels.csv] [--changed 10]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.first_print import print_of
from pipeline.known.matching import MIN_SHARE, Match, compare
from pipeline.known.prints import ClipPrint
from pipeline.sources import Source
from pipeline.video.sandbox import DecodeServer
from tests.e2e.measure import say
from tests.media import Picture

Change = Callable[[Picture], Picture]


def same(picture: Picture) -> Picture:
    """Unchanged."""
    return picture


def half(picture: Picture) -> Picture:
    """Half as wide and high."""
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.uint8)


def cropped(picture: Picture) -> Picture:
    """Without 5 % of its width and height."""
    height, width = picture.shape[:2]
    top, left = round(0.025 * height), round(0.025 * width)
    return picture[top : height - top, left : width - left]


def mirrored(picture: Picture) -> Picture:
    """Left and right exchanged."""
    return picture[:, ::-1]


def with_logo(picture: Picture) -> Picture:
    """With a white box of text in a corner, 20 % wide and 8 % high."""
    picture = picture.copy()
    height, width = picture.shape[:2]
    right, bottom = round(0.97 * width), round(0.12 * height)
    left, top = round(0.77 * width), round(0.04 * height)
    cv2.rectangle(picture, (left, top), (right, bottom), (255, 255, 255), -1)
    cv2.putText(picture, "NEWS 24", (left, bottom - 4), cv2.FONT_HERSHEY_SIMPLEX, width / 900, (200, 0, 0), 2)
    return picture


# Of the frames that are encoded again: a lower frame rate changes no hash, and takes less time here.
_EVERY = 4
# Name: how pictures are changed, and x264's CRF.
CHANGES: dict[str, tuple[Change, int]] = {
    "CRF 38": (same, 38),
    "half the size": (half, 28),
    "crop 5 %": (cropped, 23),
    "logo": (with_logo, 23),
    "mirrored": (mirrored, 23),
    "all four": (lambda picture: with_logo(cropped(half(picture))), 38),
}


def re_encode(source: Path, out: Path, change: Change, crf: int) -> None:
    """Encode every fourth frame of a clip again, with H.264."""
    with av.open(source) as clip, av.open(out, "w") as file:
        stream = None
        for frame in itertools.islice(clip.decode(video=0), None, None, _EVERY):
            picture = change(frame.to_ndarray(format="rgb24"))
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if stream is None:
                rate = (clip.streams.video[0].average_rate or 25) / _EVERY
                stream = file.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "ultrafast"})
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            changed = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            file.mux(stream.encode(changed))
        assert stream is not None
        file.mux(stream.encode())


@dataclass
class Found:
    """Matches of one kind of pair; None: nothing in common."""

    matches: list[Match | None]

    def described(self) -> str:
        """As a row of a table."""
        found = [each for each in self.matches if each is not None and each.is_listed]
        copies = sum(each.is_copy for each in found)
        row = f"{len(self.matches)} | {len(found)} | {copies}"
        if not found:
            return f"{row} | |"
        shares = [min(each.share, each.other_share) for each in found]
        distances = [each.distance for each in found]
        return (
            f"{row} | {np.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}) | "
            f"{np.median(distances):.1f} ({min(distances):.1f} to {max(distances):.1f})"
        )


def prints_of(clips: list[Path], server: DecodeServer) -> dict[Path, ClipPrint]:
    """The prints by path."""
    return {clip: print_of(Source(str(clip), is_path=True), server) for clip in clips}


def origins_of(truth: Path | None) -> dict[str, str]:
    """By file name, the name that a clip shares with those that were made from it."""
    if truth is None:
        return {}
    with truth.open() as file:
        return {row["file"]: min(row["file"], row["pair"] or row["file"]) for row in csv.DictReader(file)}


def changed(clips: list[Path], folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """Name of the change, the clip, and what became of it."""
    for name, (change, crf) in CHANGES.items():
        for i, clip in enumerate(clips):
            re_encode(clip, folder / f"{i}.mp4", change, crf)
            yield name, clip, folder / f"{i}.mp4"


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--truth", type=Path, help="labels.csv: file, pair")
    parser.add_argument("--changed", type=int, default=10, help="clips that are encoded again, the smallest files")
    options = parser.parse_args()
    origins = origins_of(options.truth)
    rows: dict[str, Found] = {}

    def add(name: str, match: Match | None) -> None:
        rows.setdefault(name, Found([])).matches.append(match)

    with DecodeServer() as server, tempfile.TemporaryDirectory() as folder:
        prints = prints_of(options.clips, server)
        for clip, each in prints.items():
            say(f"{clip.name}: {len(each)} hashes")
        chosen = sorted(options.clips, key=lambda clip: clip.stat().st_size)[: options.changed]
        for name, clip, path in changed(chosen, Path(folder)):
            (copy,) = prints_of([path], server).values()
            add(name, compare(copy, prints[clip]))
            for other in options.clips:
                related = origins.get(other.name, other.name) == origins.get(clip.name, clip.name)
                if not related:
                    add("re-encodes and other clips", compare(copy, prints[other]))
    for one, other in itertools.combinations(options.clips, 2):
        related = origins.get(one.name, one.name) == origins.get(other.name, other.name)
        add("fakes and their originals" if related else "different clips", compare(prints[one], prints[other]))
    say(f"pairs | number | listed (at least {MIN_SHARE:.0%}) | copies | smaller share, median | distance, median")
    for name, found in rows.items():
        say(f"{name} | {found.described()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
