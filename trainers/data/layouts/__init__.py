"""Disk layouts of data sets: one reader per family, with the same result type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trainers.data.layouts import celeb_df, df40, dfdc, faceforensics, folder
from trainers.data.layouts.listing import LayoutError, LayoutOptions, Listing, SourceVideo, expect_folder
from trainers.data.layouts.splits import Shares

__all__ = ["LAYOUTS", "LayoutError", "LayoutOptions", "Listing", "Shares", "SourceVideo", "read_layout"]

LAYOUTS: dict[str, Callable[[Path, LayoutOptions], Listing]] = {
    "faceforensics": faceforensics.read,
    "celeb-df": celeb_df.read,
    "dfdc": dfdc.read,
    "dfdcp": dfdc.read_preview,
    "df40": df40.read,
    "folder": folder.read,
}


def read_layout(name: str, root: Path, options: LayoutOptions | None = None) -> Listing:
    """The videos of a data set.

    Args:
        name: one of `LAYOUTS`.
        root: the set's folder.
        options: what to read.

    Raises:
        LayoutError: the layout or folder does not exist, the folder has another layout, or nothing requested is in it.
    """
    options = options or LayoutOptions()
    if name not in LAYOUTS:
        raise LayoutError(f"unknown layout {name!r}; available: {', '.join(LAYOUTS)}")
    listing = LAYOUTS[name](expect_folder(root), options)
    if options.methods:
        existing = sorted({video.method for video in listing.videos if video.method})
        if unknown := [method for method in options.methods if method not in existing]:
            raise LayoutError(f"{root} has no videos of {', '.join(unknown)}; found: {', '.join(existing) or 'none'}")
        wanted = {"", *options.methods}
        listing = replace(listing, videos=tuple(video for video in listing.videos if video.method in wanted))
    if not listing.videos:
        left_out = ", ".join(f"{count} {reason}" for reason, count in listing.dropped.items()) or "nothing was found"
        raise LayoutError(f"{root}: no videos as {name}: {left_out}")
    return listing
