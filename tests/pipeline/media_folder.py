"""A folder of files that are found as media by their names or contents, and of others."""

from __future__ import annotations

from pathlib import Path

CONTENT = b"not really a clip"
MP4 = b"\0\0\0\x20ftypisom" + bytes(20)


def media_folder(folder: Path) -> Path:
    """Make it, with a sub-folder; returns it."""
    for name in ("b.mp4", "a.MKV", "notes.txt", "sub/c.webm", "sub/labels.csv", "sub/deep/d.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    (folder / "camera_export").write_bytes(MP4)
    (folder / "README").write_bytes(CONTENT)
    return folder
