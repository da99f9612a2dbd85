"""DF40 (Yan et al., NeurIPS 2024): folders of frames, or of videos, by method.

    DF40_train/METHOD/frames/VIDEO/NNN.png       fakes of FaceForensics++'s training identities
    DF40/METHOD/{ff,cdf}/frames/VIDEO/NNN.png    for testing, on FaceForensics++ and on Celeb-DF
    DF40/METHOD/{fake,real}/VIDEO/NNN.png        methods with their own originals (heygen, e4e, MidJourney ...)

The root is the folder of DF40_train and DF40, or one of the two; folders of kinds (Face-swapping ...) above methods
do not matter, nor does `frames`. Pictures directly in a folder named `ff`, `cdf`, `fake`, `real`, `frames` or
`inversions` are clips of one frame each. The frames are already face crops; the faces in them are found and cut again.

The set has only fakes, except METHOD/real: the other originals are those of FaceForensics++ and Celeb-DF, whose own
readers accept folders of frames too; join the manifests. Groups have the same names, by the identities in VIDEO:
TARGET_SOURCE of FaceForensics++ (with train.json, val.json and test.json in the root by the official pairs, else by the
names themselves), idA_idB_NNNN of Celeb-DF. Videos in `DF40_train` are for training, a part of them split off for
validation by a hash of the group; the rest is test; videos that connect the two are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from trainers.data.layouts.faceforensics import IdentityPairs, identity_pairs
from trainers.data.layouts.listing import (
    LayoutError,
    LayoutOptions,
    Listing,
    SourceVideo,
    clip_name,
    walk_clips,
    what_is_in,
)
from trainers.data.layouts.splits import TEST, Claim, connected, place
from trainers.data.manifest import FAKE, REAL

_FRAMES = ("frames", "frames_all", "videos")
_DOMAINS = ("ff", "ffpp", "cdf", "cdfv2", "fake", "real", "inversions", "celeb-real", "youtube-real")
_KINDS = ("face-swapping", "face-reenactment", "entire face synthesis", "face editing", "face edit", "fs", "fr", "efs")
_TOPS = ("df40_train", "df40", "df40_test")
_TRAINING = "df40_train"


def read(root: Path, options: LayoutOptions) -> Listing:
    """The videos of DF40.

    Raises:
        LayoutError: no METHOD has pictures or videos, or some are outside of one.
    """
    structural = (*_FRAMES, *_DOMAINS, *_KINDS, *_TOPS)
    clips = list(walk_clips(root, structural, skipped=("landmarks", "masks", "mask")))
    if not clips:
        raise LayoutError(f"expected METHOD/frames/VIDEO/*.png or METHOD/ff/frames/VIDEO/*.png; {what_is_in(root)}")
    pairs = _pairs(root, clips)
    claims = [
        Claim(_identities(clip, root, pairs), _official(clip, root, pairs) if options.official else None)
        for clip in clips
    ]
    dropped: Counter[str] = Counter()
    dataset = options.dataset or "df40"
    videos = []
    splits = place(claims, options.shares, with_test=not options.official)
    for clip, claim, split in zip(clips, claims, splits, strict=True):
        if (into := options.split or split) is None:
            dropped["connects identities of two splits"] += 1
            continue
        parts = [part for part in clip.relative_to(root).parts[:-1] if part.lower() not in _FRAMES]
        real = "real" in (part.lower() for part in parts)
        videos.append(
            SourceVideo(
                path=clip,
                label=REAL if real else FAKE,
                split=into,
                group=claim.identities[0],
                source_video="-".join([dataset, *parts, clip_name(clip)]),
                method="" if real else _method(clip, root),
                dataset=dataset,
            )
        )
    return Listing.of("df40", root, videos, dropped)


def _method(clip: Path, root: Path) -> str:
    plain = (*_FRAMES, *_DOMAINS, *_KINDS, *_TOPS)
    for part in clip.relative_to(root).parts[:-1]:
        if part.lower() not in plain:
            return part
    raise LayoutError(f"{clip}: expected it in a folder METHOD, as in DF40_train/METHOD/frames/VIDEO")


def _official(clip: Path, root: Path, pairs: IdentityPairs) -> str | None:
    """The split of a clip by FaceForensics++'s lists, else by its folder; None: it may be used for training."""
    if (ids := _of_ffpp(clip, root)) and ids[0] in pairs.split:
        return pairs.split[ids[0]]
    return None if _TRAINING in (part.lower() for part in (root.name, *clip.relative_to(root).parts)) else TEST


def _own(clip: Path, root: Path) -> bool:
    """Whether a clip's method has originals of its own, whose names are unrelated to other sets."""
    return bool({"fake", "real"} & {part.lower() for part in clip.relative_to(root).parts[:-1]})


def _of_ffpp(clip: Path, root: Path) -> list[str]:
    named = None if _own(clip, root) else re.fullmatch(r"(\d{3})(?:_(\d{3}))?", clip_name(clip))
    return [identity for identity in named.groups() if identity] if named else []


def _pairs(root: Path, clips: list[Path]) -> IdentityPairs:
    if (root / "train.json").is_file():
        return identity_pairs(root)
    return IdentityPairs(connected([ids for clip in clips if (ids := _of_ffpp(clip, root))]), {})


def _identities(clip: Path, root: Path, pairs: IdentityPairs) -> tuple[str, ...]:
    if ids := _of_ffpp(clip, root):
        return tuple(dict.fromkeys(pairs.group(identity) for identity in ids))
    if not _own(clip, root):
        if celebrities := re.findall(r"id\d+", clip_name(clip)):
            return tuple(dict.fromkeys(f"celeb-{identity}" for identity in celebrities))
        if re.fullmatch(r"\d{5}", clip_name(clip)):
            return (f"celeb-yt-{clip_name(clip)}",)
    return (f"df40-{_method(clip, root)}-{clip_name(clip)}",)
