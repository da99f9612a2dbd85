"""The zip of an evidence pack: the same files give the same bytes, and no byte of it is without a meaning."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from models.errors import UnmaskError

MANIFEST, SIGNATURE, STAMP, MEDIA, PDF = "manifest.json", "manifest.sig", "manifest.tsr", "file", "report.pdf"
# Everything in a pack has this date, which zip needs: two packs of one verdict differ in the manifest's time alone.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_BLOCK: Final = 1 << 20
# Of what is read whole when a pack is checked; the video's file is read block by block.
_MAX_READ: Final = 256 << 20


class EvidenceError(UnmaskError):
    """A pack cannot be made, or is not one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a pack: its bytes, or where they are."""

    name: str
    content: bytes | Path

    def sha256(self) -> tuple[str, int]:
        """With the number of bytes."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest(), len(self.content)
        with self.content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()


def listing(parts: Sequence[Part]) -> dict[str, dict[str, Any]]:
    """The files by name, with sha256 and bytes, as the manifest has them."""
    return {part.name: dict(zip(("sha256", "bytes"), part.sha256(), strict=True)) for part in parts}


def contents_sha256(files: dict[str, dict[str, Any]]) -> str:
    """sha256 over the lines of `sha256sum` for all files but the PDF, which shows it on each page.

    A PDF cannot show the hash of a manifest that has the PDF's own hash.

    Args:
        files: as in the manifest, in its order.
    """
    lines = (f"{said['sha256']}  {name}\n" for name, said in files.items() if name != PDF)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_zip(parts: Iterable[Part], file: IO[bytes]) -> None:
    """Stored, not compressed, with nothing of this machine: the same files give the same bytes."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as pack:
        for part in parts:
            if isinstance(part.content, bytes):
                pack.writestr(_info(part.name), part.content)
            else:
                with part.content.open("rb") as source, pack.open(_info(part.name), "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, _BLOCK)


def _info(name: str) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name, _DATE)
    found.create_system, found.external_attr = 3, 0o644 << 16
    return found


def is_as_written(file: Path, pack: zipfile.ZipFile) -> bool:
    """Whether the zip is, byte for byte, what `write_zip` makes of its files: no byte of it is without a meaning."""
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.zip"
        parts = []
        for number, name in enumerate(pack.namelist()):
            if name == MEDIA:
                copy = Path(folder) / str(number)
                with pack.open(name) as source, copy.open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK)
                parts.append(Part(name, copy))
            else:
                parts.append(Part(name, read_whole(pack, name)))
        with again.open("wb") as written:
            write_zip(parts, written)
        with again.open("rb") as one, file.open("rb") as other:
            return digest_of(one) == digest_of(other)


def read_whole(pack: zipfile.ZipFile, name: str) -> bytes:
    """A file of a pack.

    Raises:
        KeyError: there is no such file.
        ValueError: it is too large.
    """
    if pack.getinfo(name).file_size > _MAX_READ:
        raise ValueError(f"{name} is too large")
    return pack.read(name)


def digest_of(opened: IO[bytes]) -> tuple[str, int]:
    """Its sha256 and its number of bytes."""
    digest, size = hashlib.sha256(), 0
    while block := opened.read(_BLOCK):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def json_bytes(values: dict[str, Any]) -> bytes:
    """As JSON for people."""
    return (json.dumps(values, indent=2, ensure_ascii=False, default=str) + "\n").encode()


def moment(unix_s: float | None) -> str | None:
    """`2026-11-29T02:51:28+00:00`."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")
