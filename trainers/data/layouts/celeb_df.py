"""Celeb-DF v1 and v2 (Li et al., CVPR 2020) and Celeb-DF++ (Li et al., arXiv 2507.18015).

    Celeb-real/idA_NNNN.mp4                      of celebrity A
    YouTube-real/NNNNN.mp4                       of others; each counts as a separate identity
    Celeb-synthesis/idA_idB_NNNN.mp4             v1, v2: the face of B in video NNNN of A
    Celeb-synthesis/SCENARIO/METHOD/*.mp4        ++: FaceSwap, FaceReenact and TalkingFace, 22 methods
    List_of_testing_videos.txt                   lines of `LABEL PATH`, 1 for real

Folders of frames work as well as videos. Each identity has one split: those on the test list are test identities,
the others are split by a hash. Videos of a test identity that are not on the list, and fakes that connect identities of
two splits, are left out: the official list shares most of its identities with the other videos. To train on Celeb-DF,
use hash splits instead (`official=False`).
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from trainers.data.layouts.listing import (
    LayoutError,
    LayoutOptions,
    Listing,
    SourceVideo,
    clip_name,
    clips_in,
    expect_file,
    expect_folder,
    walk_clips,
    what_is_in,
)
from trainers.data.layouts.splits import TEST, Claim, place
from trainers.data.manifest import FAKE, REAL

TEST_LIST = "List_of_testing_videos.txt"
# Of v1 and v2, whose fakes are directly in Celeb-synthesis; Celeb-DF++ uses this name too.
OWN_METHOD = "Celeb-DF"
_STRUCTURAL = ("videos", "frames")


def read(root: Path, options: LayoutOptions) -> Listing:
    """The videos of Celeb-DF.

    Raises:
        LayoutError: folders or the test list are missing, or it contradicts the folders.
    """
    celebrities = clips_in(root / "Celeb-real")
    others = clips_in(root / "YouTube-real")
    synthesis = expect_folder(root / "Celeb-synthesis")
    fakes = list(walk_clips(synthesis, _STRUCTURAL, skipped=("landmarks", "masks")))
    if not fakes:
        raise LayoutError(f"expected videos in {synthesis}; {what_is_in(synthesis)}")
    listed = _test_list(root) if options.official else {}
    several = any(_method(clip, synthesis) != OWN_METHOD for clip in fakes)
    dataset = options.dataset or _dataset(root, several)
    dropped: Counter[str] = Counter()

    rows: list[tuple[Path, str, tuple[str, ...], str]] = []  # clip, method, identities, original
    rows += [(clip, "", (f"yt-{clip_name(clip)}",), "") for clip in others]
    for clip, method in [(c, "") for c in celebrities] + [(c, _method(c, synthesis)) for c in fakes]:
        identities = tuple(dict.fromkeys(re.findall(r"id\d+", clip_name(clip))))
        if not identities:
            dropped["no identity in its name"] += 1
            continue
        number = re.search(r"_(\d{4})(?!\d)", clip_name(clip))
        rows.append((clip, method, identities, f"{identities[0]}_{number[1]}" if method and number else ""))

    claims = [Claim(tuple(f"celeb-{i}" for i in ids), listed.get(_key(clip, root))) for clip, _, ids, _ in rows]
    if listed and not any(claim.official for claim in claims):
        raise LayoutError(f"{root / TEST_LIST} names {len(listed)} videos, none of which exists in {root}")
    splits = place(claims, options.shares, with_test=not options.official)
    videos = []
    for (clip, method, identities, original), claim, split in zip(rows, claims, splits, strict=True):
        if (into := options.split or split) is None:
            on_list = "on" if claim.official else "off"
            dropped[f"{on_list} the test list, with an identity of another split"] += 1
            continue
        folder = method or clip.relative_to(root).parts[0]
        videos.append(
            SourceVideo(
                path=clip,
                label=FAKE if method else REAL,
                split=into,
                group=f"celeb-{identities[0]}",
                source_video=f"{dataset}-{folder}-{clip_name(clip)}",
                method=method,
                dataset=dataset,
                original=f"{dataset}-Celeb-real-{original}" if original else "",
            )
        )
    return Listing.of("celeb-df", root, videos, dropped)


def _dataset(root: Path, several_methods: bool) -> str:
    if several_methods:
        return "celeb_df_pp"
    version = re.search(r"v([12])\b", root.name, re.IGNORECASE)
    return f"celeb_df_v{version[1]}" if version else "celeb_df"


def _method(clip: Path, synthesis: Path) -> str:
    folders = [name for name in clip.relative_to(synthesis).parts[:-1] if name not in _STRUCTURAL]
    return folders[-1] if folders else OWN_METHOD


def _key(clip: Path, root: Path) -> str:
    """A clip's path as the test list has it, but without suffix: folders of frames are listed as videos."""
    folders = [name for name in clip.relative_to(root).parts[:-1] if name not in _STRUCTURAL]
    return "/".join([*folders, clip_name(clip)])


def _test_list(root: Path) -> dict[str, str]:
    file = expect_file(root / TEST_LIST)
    keys = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        named = re.fullmatch(r"[01] +(\S+)", line.strip())
        if named is None:
            raise LayoutError(f"{file}, line {number}: expected `LABEL PATH`, got {line!r}")
        keys[named[1].rpartition(".")[0]] = TEST
    return keys
