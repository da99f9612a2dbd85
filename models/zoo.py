"""Weights by name: where they come from, their sha256 and licence, and where they are on this machine.

An entry's file comes in one of three ways: with the package (`packaged`), by `pull` from its URI, or, if the package
holds its difference from a pinned base, also by `build`. Everything is pinned: a file with another sha256 is never
used, whatever its source.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from models.atomic import atomic_write
from models.errors import UnmaskError
from models.local_files import WeightsUnavailableError, is_offline, weights_dir

Progress = Callable[[int, int], None]

_TIMEOUT_S = 30.0  # without a byte from the server
_CHUNK_BYTES = 1 << 18
_SCHEMES = ("https", "http", "file")


class ZooError(UnmaskError):
    """Weights that are unknown, missing, or not the pinned ones; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """Named weights.

    Attributes:
        name: name in commands and configs.
        kind: `detector`: a whole deepfake detector; `face_detector`: finds the faces.
        uri: where `pull` fetches the file; empty if it is not published.
        filename: its name on this machine.
        sha256: of the file, in hex.
        size_bytes: of the file.
        licence: SPDX identifier or LicenseRef.
        card: page where its authors describe it.
        description: one line.
        packaged: the file comes with the package, and is not fetched.
        difference: the file in the package that `build` makes this one from (see `models.difference`).
        install: the command that installs the base of the difference.
        made_on: the day on which its checkpoint was made, in UTC, as YYYY-MM-DD; None: unknown.
        aliases: other names of the same weights.
    """

    name: str
    kind: Literal["detector", "face_detector"]
    uri: str
    filename: str
    sha256: str
    size_bytes: int
    licence: str
    card: str
    description: str
    packaged: bool = False
    difference: str | None = None
    install: str | None = None
    made_on: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The name and its aliases."""
        return (self.name, *self.aliases)

    @property
    def delivery(self) -> Literal["packaged", "built", "pulled"]:
        """How the file gets onto a machine; one that can be built can be pulled too, if it has a URI."""
        if self.packaged:
            return "packaged"
        return "pulled" if self.difference is None else "built"


# Used for scoring if no weights are named.
DEFAULT_DETECTOR = "unmask-small"


def _taught(architecture: str, sha256: str, size_bytes: int) -> ZooEntry:
    """Weights of an architecture that learned from the other detectors."""
    name = f"unmask-{architecture.replace('_', '-')}"
    return ZooEntry(
        name=name,
        kind="detector",
        uri=f"package:models/weights/{name}.safetensors",
        filename=f"{name}.safetensors",
        sha256=sha256,
        size_bytes=size_bytes,
        licence="LicenseRef-research",
        card="docs/model-card-architectures.md",
        description=f"{architecture} over EfficientNet-Lite0 at 160 px, taught by unmask-small and unmask-large",
        packaged=True,
        made_on="2026-11-29",
    )


_ENTRIES = (
    ZooEntry(
        name="yunet",
        kind="face_detector",
        uri="https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/master/onnx/yunet_n_dynamic.onnx",
        filename="yunet_n_dynamic.onnx",
        sha256="104ee26c71d5c270ce79a6b3dced91c91013260d29a6bf18f9296c5b8c4c2b12",
        size_bytes=322_906,
        licence="Apache-2.0",
        card="https://github.com/ShiqiYu/libfacedetection.train",
        description="YuNet n, any input size: 10 to 25 times faster than MTCNN on a CPU",
    ),
    ZooEntry(
        name=DEFAULT_DETECTOR,
        kind="detector",
        uri="package:models/weights/unmask-small.safetensors",
        filename="unmask-small.safetensors",
        sha256="2ad8b047e991e53db006cc8ccd04c21978796a86b807ddd31f06f9de43e11d29",
        size_bytes=6_358_268,
        licence="LicenseRef-research",  # as the training data: see the card
        card="docs/model-card.md",
        description="xception over EfficientNet-Lite0 at 160 px, trained on DFDC and FaceForensics++ crops",
        packaged=True,
        made_on="2026-11-27",
        aliases=("unmask-xception",),
    ),
    ZooEntry(
        name="unmask-large",
        kind="detector",
        uri="",
        filename="unmask-large.safetensors",
        sha256="3b42c7a270474d9542e3c03a4739582deeb8c860a9f19969ea6f6a965f7acfab",
        size_bytes=344_414_008,
        licence="LicenseRef-research",
        card="docs/model-card-large.md",
        description="clip_vit at 128 px: CLIP ViT-B/16 with its norms trained, also on live swaps and pseudo-fakes",
        difference="unmask-large.difference",
        install="pip install unmask[large]",
        made_on="2026-11-27",
    ),
    _taught("two_stream", "bc89c4f9f13913b060a34d701dfbd3a963a5d9fb071145c643db793299be603a", 9_117_224),
    _taught("swin_transformer", "33e4e1a8fefe87445aac1a43ff8e781e9ecbb8dc519276d74658404074f51419", 6_462_552),
    _taught("cnn_transformer", "05ff6e938fd1c56d9ded1be3b1df3dd805b3ef807b2674a107ba5d695fdfa768", 10_018_520),
    _taught("cross_attention", "b681675e633e0c284044c4a8c99dae69c64136abec7720e26cfe007394b404fe", 8_326_640),
)


def list_entries() -> tuple[ZooEntry, ...]:
    """All named weights."""
    return _ENTRIES


def list_names() -> tuple[str, ...]:
    """Every name that weights go by, aliases included."""
    return tuple(name for entry in list_entries() for name in entry.names)


def default_detector() -> str:
    """The name of the weights used if none are named."""
    return DEFAULT_DETECTOR


def find_entry(name: str) -> ZooEntry:
    """The entry of this name.

    Raises:
        ZooError: it does not exist; the message lists what exists.
    """
    for entry in list_entries():
        if name in entry.names:
            return entry
    raise ZooError(f"no weights named {name!r}; available: {', '.join(list_names())}")


def packaged_dir() -> Path:
    """Folder of the weights and differences that come with the package."""
    return Path(__file__).parent / "weights"


def locate(entry: ZooEntry) -> Path | None:
    """The entry's file on this machine, from the package, pulled or built; None if it is missing.

    Raises:
        ZooError: a file of that name exists, but has other contents.
    """
    for folder in (packaged_dir(), weights_dir()):
        file = folder / entry.filename
        if file.is_file():
            sha256 = _sha256(file)
            if sha256 != entry.sha256:
                comes = "it comes with the wheel: reinstall unmask"
                advice = comes if folder == packaged_dir() else f"{commands(entry)} replaces it"
                raise ZooError(f"{file} has sha256 {sha256}, but {entry.name} has {entry.sha256}; {advice}")
            return file
    return None


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of named weights, or the path itself. Nothing is downloaded.

    A name of the zoo wins over a file of the same name here; `./name` is always the file.

    Raises:
        ZooError: neither a name nor a file, or a name whose file is missing or wrong.
    """
    given = os.fspath(name_or_path)
    if given not in list_names():
        path = Path(given).expanduser()
        if path.is_file():
            return path
        names = ", ".join(list_names())
        raise ZooError(f"{given}: no such file, and no weights of that name; the known names are: {names}")
    entry = find_entry(given)
    file = locate(entry)
    if file is None and entry.packaged:
        raise ZooError(
            f"the weights {entry.name} come with the wheel, but {entry.filename} is not in this installation "
            f"(of the detectors, container images hold {DEFAULT_DETECTOR} only): reinstall, or {_by_hand(entry)}"
        )
    if file is None:
        raise ZooError(f"the weights {entry.name} are not on this machine: run {commands(entry)}, or {_by_hand(entry)}")
    return file


def split_names(weights: str | os.PathLike[str]) -> tuple[str | os.PathLike[str], ...]:
    """The members of an ensemble, named with commas between; a path, or text that is a file's path, is a single member.

    Raises:
        ZooError: a name between two commas is empty.
    """
    if not isinstance(weights, str) or "," not in weights or Path(weights).expanduser().is_file():
        return (weights,)
    names = tuple(name.strip() for name in weights.split(","))
    if not all(names):
        raise ZooError(f"{weights}: expected names or paths of weights separated by single commas")
    return names


def pull(name: str, *, source: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Path:
    """Put the file of named weights into the cache, checked against its sha256; returns at once if it exists.

    Args:
        name: of an entry.
        source: a path, or an http, https or file URI, instead of the entry's own.
        progress: called with the bytes received so far and the bytes expected.

    Returns:
        The file's path.

    Raises:
        ZooError: unknown name; offline (`UNMASK_OFFLINE=1`); the source cannot be reached, breaks off, or has
            other contents. Then no file is left behind.
    """
    entry = find_entry(name)
    if entry.packaged and source is None:
        return resolve(name)
    uri = entry.uri if source is None else os.fspath(source)
    if not uri:
        raise ZooError(f"{entry.name} is not published yet: run {commands(entry)}")
    target = weights_dir() / entry.filename
    if target.is_file() and _sha256(target) == entry.sha256:
        return target
    try:
        with _open(uri, entry) as remote, atomic_write(target) as file:
            _copy(remote, file, entry, uri, progress)
    except urllib.error.HTTPError as error:
        raise ZooError(f"{uri}: the server answered {error.code} {error.reason}; {_by_hand(entry)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # the last one: malformed URIs
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise ZooError(f"{uri}: cannot be fetched ({reason}); {_by_hand(entry)}") from error
    return target


def build(name: str) -> Path:
    """Make the file of named weights from the difference in the package and its base; returns at once if it exists.

    Nothing is downloaded. The file is the same, byte for byte, as the one that `pull` fetches.

    Returns:
        The file's path.

    Raises:
        ZooError: unknown name; no difference, or a damaged one; its base is not installed or differs;
            or the result is not the pinned file. Then no file is left behind.
    """
    from models.checkpoint import CheckpointError
    from models.difference import apply_difference, read_difference

    entry = find_entry(name)
    if entry.difference is None:
        other = "they come with the wheel" if entry.packaged else f"run `unmask models pull {name}`"
        raise ZooError(f"the weights {name} are not built: {other}")
    target = weights_dir() / entry.filename
    if target.is_file() and _sha256(target) == entry.sha256:
        return target
    difference = packaged_dir() / entry.difference
    try:
        named = read_difference(difference).sha256
        if named != entry.sha256:
            raise ZooError(f"{difference}: gives a file with sha256 {named}, and {name} has {entry.sha256}: reinstall")
        apply_difference(difference, target)
    except (CheckpointError, WeightsUnavailableError, OSError) as error:
        raise ZooError(f"{name} cannot be built: {error}") from error
    return target


def _copy(remote: BinaryIO, file: BinaryIO, entry: ZooEntry, uri: str, progress: Progress | None) -> None:
    digest = hashlib.sha256()
    received_bytes = 0
    # One byte more than expected shows that it is another file, whatever its length.
    while chunk := remote.read(min(_CHUNK_BYTES, entry.size_bytes + 1 - received_bytes)):
        received_bytes += len(chunk)
        digest.update(chunk)
        file.write(chunk)
        if progress is not None:
            progress(received_bytes, entry.size_bytes)
    if received_bytes < entry.size_bytes:
        raise ZooError(
            f"{uri}: ended after {received_bytes} of {entry.size_bytes} bytes: interrupted, or another file; "
            "nothing was kept"
        )
    if digest.hexdigest() != entry.sha256:
        raise ZooError(f"{uri}: not the {entry.filename} with sha256 {entry.sha256}; nothing was kept")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _open(uri: str, entry: ZooEntry) -> BinaryIO:
    if "://" not in uri:
        return Path(uri).expanduser().open("rb")
    scheme = urllib.parse.urlsplit(uri).scheme.lower()
    if scheme not in _SCHEMES:
        raise ZooError(f"{uri}: cannot fetch over {scheme!r}; give a path or one of: {', '.join(_SCHEMES)}")
    if scheme != "file" and is_offline():
        raise ZooError(f"UNMASK_OFFLINE is set, so {uri} is not fetched; {_by_hand(entry)}")
    opened: BinaryIO = urllib.request.urlopen(uri, timeout=_TIMEOUT_S)
    return opened


def commands(entry: ZooEntry) -> str:
    """The commands that bring an entry's file."""
    pull = f"`unmask models pull {entry.name}{' --from FILE' if entry.packaged else ''}`"
    if entry.difference is None:
        return pull
    needs = "" if entry.install is None else f" (after `{entry.install}`)"
    built = f"`unmask models build {entry.name}`{needs}"
    return f"{built} or {pull}" if entry.uri else built


def _by_hand(entry: ZooEntry) -> str:
    if entry.packaged:
        what = f"{entry.filename} of the wheel"
    else:
        what = f"the file of {entry.uri}" if entry.uri else entry.filename
    return (
        f"place {what} (sha256 {entry.sha256}) at {weights_dir() / entry.filename}, "
        f"or run `unmask models pull {entry.name} --from FILE`"
    )
