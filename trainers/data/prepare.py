"""From a data set's videos to face crops in tar shards with a manifest; an interrupted run resumes.

An original and its fakes are one unit of work. Units are written in a fixed order, whichever thread finishes
first, so the same set makes the same shards, byte for byte, interrupted or not. After each unit its rows go into
`progress.jsonl`, with the position in the shards.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from models.atomic import atomic_write
from pipeline.types import Image
from pipeline.video.clip import DecodeError
from trainers.data.layouts.listing import Listing, SourceVideo
from trainers.data.manifest import FAKE, REAL, Manifest
from trainers.data.prepare_journal import Journal, PrepareError, UnitLine
from trainers.data.shards import ShardError, ShardWriter
from trainers.data.tight_pictures import TightCutter
from trainers.data.video_crops import CroppedVideo, Cutter, FaceCrop, NoCropsError

__all__ = ["PrepareError", "PrepareOptions", "Prepared", "UnitDone", "VideoFailure", "member_stem", "prepare"]

MANIFEST, FAILURES = "manifest.parquet", "failures.csv"
_SUFFIX = {"jpeg": ".jpg", "png": ".png"}
# Units queued beyond those in progress: a long one must not stop the other threads.
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How crops are stored.

    Attributes:
        image: jpeg, or lossless png.
        jpeg_quality: 1 to 100.
        shard_mib: largest size of a shard.
        pairs: cut a fake where its original was cut, if both are in the set and show the same pictures.
    """

    image: Literal["jpeg", "png"] = "jpeg"
    jpeg_quality: int = 95
    shard_mib: float = 60.0
    pairs: bool = True

    def __post_init__(self) -> None:
        if self.image not in _SUFFIX:
            raise ValueError(f"image must be jpeg or png, got {self.image!r}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be in 1..100, got {self.jpeg_quality}")
        if self.shard_mib <= 0:
            raise ValueError(f"shard_mib must be positive, got {self.shard_mib}")


@dataclass(frozen=True, slots=True)
class VideoFailure:
    """A video without crops.

    Attributes:
        outcome: no_face, low_quality, undecodable, over_limit or unavailable, as of a scan.
    """

    source_video: str
    path: str
    split: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """Result of a run.

    Attributes:
        manifest: its rows; the file is `MANIFEST` in the folder.
        videos: with crops.
        paired: fakes cut at the places of their originals.
        unpaired: fakes with an original in the set that show other pictures, and were cut independently.
        failures: videos without crops.
    """

    manifest: Manifest
    videos: int
    paired: int
    unpaired: int
    failures: tuple[VideoFailure, ...]


@dataclass(frozen=True, slots=True)
class UnitDone:
    """Progress of a run, for a progress bar."""

    videos_done: int
    videos: int
    crops: int
    failures: int

    def after(self, line: UnitLine) -> UnitDone:
        """The progress after one more unit."""
        return UnitDone(
            self.videos_done + line.videos,
            self.videos,
            self.crops + len(line.rows),
            self.failures + len(line.failures),
        )


def prepare(
    listing: Listing,
    out: Path,
    cutter: Cutter,
    options: PrepareOptions | None = None,
    *,
    workers: int = 1,
    progress: Callable[[UnitDone], None] | None = None,
) -> Prepared:
    """Cut the faces out of all videos of a set.

    Args:
        listing: the videos.
        out: folder of the shards and the manifest; an interrupted run with the same settings resumes.
        cutter: finds and cuts the faces.
        options: how crops are stored.
        workers: units processed in parallel.
        progress: called after each unit; an exception from it interrupts the run.

    Raises:
        PrepareError: the folder has another run, or no video gave a crop.
        OSError: something cannot be written; the run can be resumed later.
    """
    options = options or PrepareOptions()
    units = _units(listing, pairs=options.pairs)
    with Journal(out, _settings(listing, cutter, options)) as journal:
        todo = [unit for unit in units if unit[0].source_video not in journal.done]
        so_far = _so_far(journal.done.values(), len(listing.videos))
        with (
            closing(_worked(todo, cutter, options, workers)) as worked,
            ShardWriter(out, round(options.shard_mib * 2**20), journal.end) as shards,
        ):
            try:
                if todo:
                    shards.open()
                for unit, results in worked:
                    line = _write(unit, results, shards, listing)
                    journal.add(line)
                    so_far = so_far.after(line)
                    if progress is not None:
                        progress(so_far)
                shards.finish()
            except ShardError as error:
                raise PrepareError(str(error)) from error
        return _finish(out, [journal.done[unit[0].source_video] for unit in units])


def _settings(listing: Listing, cutter: Cutter, options: PrepareOptions) -> dict[str, Any]:
    """All settings that affect the bytes of the shards."""
    return {
        "schema": 1,
        "layout": listing.layout,
        "videos": len(listing.videos),
        "listing_sha256": listing.sha256,
        "frames": cutter.frames,
        "all_people": cutter.all_people,
        "detector": cutter.detector.name,
        "input_spec": cutter.spec.to_dict(),
        **asdict(options),
        **({"tight": True} if isinstance(cutter, TightCutter) else {}),
    }


def _units(listing: Listing, *, pairs: bool) -> list[tuple[SourceVideo, ...]]:
    """An original and its fakes, or a video alone; in the order of the first one's name."""
    fakes: dict[str, list[SourceVideo]] = {}
    if pairs:
        for video in listing.videos:
            if video.original:
                fakes.setdefault(video.original, []).append(video)
    return [(video, *fakes.get(video.source_video, ())) for video in listing.videos if not (pairs and video.original)]


@dataclass(frozen=True, slots=True)
class _Image:
    key: tuple[int, int]  # track and frame: shared by the two crops of a pair
    name: str
    data: bytes
    crop: FaceCrop


@dataclass(frozen=True, slots=True)
class _Result:
    images: tuple[_Image, ...]
    failure: tuple[str, str] | None = None  # outcome and reason
    paired: bool | None = None  # None: no original that has crops


def _worked(
    units: Sequence[tuple[SourceVideo, ...]], cutter: Cutter, options: PrepareOptions, workers: int
) -> Generator[tuple[tuple[SourceVideo, ...], list[_Result]]]:
    """The results of units in their order, made by several threads."""
    stopping = threading.Event()
    todo = iter(units)
    running: deque[tuple[tuple[SourceVideo, ...], Future[list[_Result]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            while True:
                while len(running) < workers + _AHEAD and (unit := next(todo, None)) is not None:
                    running.append((unit, pool.submit(_work, unit, cutter, options, stopping)))
                if not running:
                    return
                unit, future = running.popleft()
                yield unit, future.result()
        finally:
            # Closed or interrupted: threads finish their current video, and the pool waits for them.
            stopping.set()
            for _, future in running:
                future.cancel()


def _work(
    unit: tuple[SourceVideo, ...], cutter: Cutter, options: PrepareOptions, stopping: threading.Event
) -> list[_Result]:
    original: CroppedVideo | None = None
    results: list[_Result] = []
    for number, video in enumerate(unit):
        if stopping.is_set():
            break
        paired: bool | None = None
        try:
            cropped: CroppedVideo | None = None
            if number and original is not None:
                cropped = cutter.cut_like(original, video.path, video.source_video)
                paired = cropped is not None
            if cropped is None:
                cropped = cutter.cut(video.path, video.source_video)
        except (DecodeError, NoCropsError) as error:
            results.append(_Result((), (error.outcome, str(error))))
            continue
        except Exception as error:
            error.add_note(f"while preparing {video.path}")
            raise
        if number == 0:
            original = cropped
        images = (_image(video, crop, options, several=cutter.all_people) for crop in cropped.crops)
        results.append(_Result(tuple(images), paired=paired))
    return results


def _image(video: SourceVideo, crop: FaceCrop, options: PrepareOptions, *, several: bool) -> _Image:
    person = f"-p{crop.track}" if several else ""
    name = f"{member_stem(video.source_video)}-{crop.index:06d}{person}{_SUFFIX[options.image]}"
    return _Image((crop.track, crop.index), name, _encoded(crop.pixels, options), crop)


def member_stem(source_video: str) -> str:
    """A video's name as a prefix of file names: letters, digits, dots, dashes and underscores.

    A name with other characters, or too long, ends in a part of its hash, so that two names never collide.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", source_video).lstrip(".")[:120]
    if plain == source_video:
        return plain
    return f"{plain}-{hashlib.sha256(source_video.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _encoded(pixels: Image, options: PrepareOptions) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, options.jpeg_quality] if options.image == "jpeg" else []
    _, data = cv2.imencode(_SUFFIX[options.image], pixels[..., ::-1], settings)
    return bytes(data)


def _write(unit: tuple[SourceVideo, ...], results: list[_Result], shards: ShardWriter, listing: Listing) -> UnitLine:
    """Store the crops of a unit; returns its line of the progress file."""
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    originals: dict[tuple[int, int], str] = {}
    for number, (video, result) in enumerate(zip(unit, results, strict=True)):
        if result.failure is not None:
            outcome, reason = result.failure
            place = listing.place_of(video)
            failures.append(asdict(VideoFailure(video.source_video, place, video.split, outcome, reason)))
        for image in result.images:
            path = shards.add(image.name, image.data)
            if number == 0:
                originals[image.key] = path
            rows.append(_row(video, image.crop, path, originals.get(image.key, "") if result.paired else ""))
    end = shards.sync()
    return UnitLine(
        unit=unit[0].source_video,
        videos=len(unit),
        paired=sum(result.paired is True for result in results),
        unpaired=sum(result.paired is False for result in results),
        rows=rows,
        failures=failures,
        at=(end.shard, end.end_bytes),
    )


def _row(video: SourceVideo, crop: FaceCrop, path: str, pair: str) -> dict[str, Any]:
    known = bool(np.isfinite(crop.landmarks).all())
    return {
        "path": path,
        "label": {REAL: "real", FAKE: "fake"}[video.label],
        "split": video.split,
        "group": video.group,
        "source_video": video.source_video,
        "method": video.method,
        "dataset": video.dataset,
        "source_width": crop.width_px,
        "landmarks": [round(float(v), 2) for v in crop.landmarks.ravel()] if known else None,
        "pair": pair,
        **({"certainty": video.certainty} if video.certainty < 1 else {}),
    }


def _so_far(lines: Iterable[UnitLine], videos: int) -> UnitDone:
    done = UnitDone(0, videos, 0, 0)
    for line in lines:
        done = done.after(line)
    return done


def _finish(out: Path, lines: Sequence[UnitLine]) -> Prepared:
    failures = tuple(VideoFailure(**failure) for line in lines for failure in line.failures)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(VideoFailure.__dataclass_fields__)
    writer.writerows(asdict(failure).values() for failure in failures)
    with atomic_write(out / FAILURES) as opened:
        opened.write(text.getvalue().encode("utf-8", "surrogateescape"))
    rows = [row for line in lines for row in line.rows]
    if not rows:
        raise PrepareError(f"none of the {len(failures)} videos gave a crop: {out / FAILURES} says why")
    manifest = Manifest.of(rows, out)
    manifest.write(out / MANIFEST)
    return Prepared(
        manifest=manifest,
        videos=len({row["source_video"] for row in rows}),
        paired=sum(line.paired for line in lines),
        unpaired=sum(line.unpaired for line in lines),
        failures=failures,
    )
