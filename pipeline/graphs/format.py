"""Graphs: what OpenVINO runs, as files of their own, so that serving on a CPU needs neither torch nor the checkpoint.

A graph is a zip archive without compression: `graph.json` with the fields of `GraphInfo` and the sha256 of the other
entries, and for each network `NAME.xml` and `NAME.bin`, OpenVINO's intermediate representation. Reading it runs no code
from it. `pipeline.graphs.make` makes the graph of a checkpoint, which needs torch; this module needs neither.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.atomic import atomic_write
from models.errors import UnmaskError
from models.local_files import cache_dir
from models.spec import InputSpec

FORMAT_VERSION: Final = 1
# Rises when the same weights would give another graph: what is around the network, or how it is converted.
MAKER_VERSION: Final = 1
SUFFIX: Final = ".graph"
# Batch sizes that a detector's graph is compiled for; a batch is split, never padded. Beyond 4 little is gained on a
# CPU (docs/benchmarks.md).
SHAPES: Final = (4, 2, 1)
_INFO = "graph.json"
# No architecture has a gigabyte of weights.
_MAX_BYTES: Final = 2 << 30


class GraphError(UnmaskError):
    """A graph that cannot be read or made; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Network:
    """One network in OpenVINO's intermediate representation.

    Attributes:
        xml: its operations.
        weights: its constants.
    """

    xml: bytes
    weights: bytes


@dataclass(frozen=True, slots=True)
class GraphInfo:
    """What a graph says about itself.

    Attributes:
        weights_sha256: of the checkpoint, or of the weights, that it was made from.
        input_spec: of a detector; None for other networks.
        shapes: batch sizes that it is compiled for; empty: any.
        precision: of its weights, `f16` or `f32`. Vectors and what float16 cannot hold stay float32.
        converter: versions of what made it, by name.
        maker: `MAKER_VERSION` then.
    """

    weights_sha256: str
    input_spec: InputSpec | None
    shapes: tuple[int, ...]
    precision: str
    converter: Mapping[str, str]
    maker: int = MAKER_VERSION

    @property
    def key(self) -> str:
        """First 16 hex digits of sha256 over everything but the weights: graphs of the same kind have the same key."""
        canonical = json.dumps(self.to_dict() | {"weights_sha256": ""}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def filename(self) -> str:
        """Name of its file where graphs of many weights are kept."""
        return f"{self.weights_sha256}-{self.key}{SUFFIX}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, from which `from_dict` makes an equal info."""
        return {
            "weights_sha256": self.weights_sha256,
            "input_spec": None if self.input_spec is None else self.input_spec.to_dict(),
            "shapes": list(self.shapes),
            "precision": self.precision,
            "converter": dict(sorted(self.converter.items())),
            "maker": self.maker,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GraphInfo:
        """The info that `to_dict` described.

        Raises:
            ValueError: a field is missing or wrong.
        """
        try:
            spec = values["input_spec"]
            return cls(
                weights_sha256=str(values["weights_sha256"]),
                input_spec=None if spec is None else InputSpec.from_dict(spec),
                shapes=tuple(int(shape) for shape in values["shapes"]),
                precision=str(values["precision"]),
                converter={str(name): str(version) for name, version in values["converter"].items()},
                maker=int(values["maker"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or wrong: {error!r}") from error

    def fits(self, weights_sha256: str, spec: InputSpec) -> bool:
        """Whether it is a graph of this version for a detector's weights and input, whatever converted it."""
        return (self.weights_sha256, self.input_spec, self.shapes, self.maker) == (
            weights_sha256,
            spec,
            SHAPES,
            MAKER_VERSION,
        )


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph in memory.

    Attributes:
        info: what it says about itself.
        networks: by name; a detector has one, `detector`.
    """

    info: GraphInfo
    networks: Mapping[str, Network]


def pack(graph: Graph) -> bytes:
    """The bytes of a graph's file: equal graphs give equal bytes."""
    entries = {}
    for name, network in graph.networks.items():
        entries[f"{name}.xml"], entries[f"{name}.bin"] = network.xml, network.weights
    info = {
        "format_version": FORMAT_VERSION,
        **graph.info.to_dict(),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in entries.items()},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in {_INFO: json.dumps(info, indent=1).encode(), **entries}.items():
            # ZipInfo without a date is of 1980.
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()


def write_graph(path: Path, graph: Graph) -> None:
    """Write a graph's file atomically.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_write(path) as file:
        file.write(pack(graph))


def read_graph(path: str | os.PathLike[str]) -> Graph:
    """Read a graph and check its bytes against the sha256 in it.

    Raises:
        GraphError: no such file, foreign, damaged, or of a newer format.
    """
    with _opened(path) as archive:
        info, digests = _info(path, archive)
        networks = {}
        for name in (name.removesuffix(".xml") for name in digests if name.endswith(".xml")):
            networks[name] = Network(
                _entry(path, archive, f"{name}.xml", digests), _entry(path, archive, f"{name}.bin", digests)
            )
        if not networks:
            raise GraphError(f"{path}: a graph without a network")
    return Graph(info, networks)


def read_graph_info(path: str | os.PathLike[str]) -> GraphInfo:
    """What a graph says about itself, without reading its networks.

    Raises:
        GraphError: as `read_graph`, except for damage within the networks.
    """
    with _opened(path) as archive:
        return _info(path, archive)[0]


def graphs_dir() -> Path:
    """Folder of the graphs made on this machine: `graphs` in `$UNMASK_CACHE`, or in `~/.cache/unmask`."""
    return cache_dir() / "graphs"


def find_graphs(weights_sha256: str, spec: InputSpec, folders: Iterable[Path]) -> list[Path]:
    """The graphs of a detector in these folders; those that cannot be read are passed over.

    Args:
        weights_sha256: of its checkpoint.
        spec: its input.
        folders: that hold graphs by `GraphInfo.filename`.
    """
    named = (path for folder in folders for path in sorted(folder.glob(f"{weights_sha256}-*{SUFFIX}")))
    return [path for path in named if why_unfit(path, weights_sha256, spec) is None]


def why_unfit(path: Path, weights_sha256: str, spec: InputSpec) -> str | None:
    """Why a file is no graph of a detector's weights and input that this version can run; None if it is one."""
    try:
        fits = read_graph_info(path).fits(weights_sha256, spec)
    except GraphError as error:
        return str(error)
    return None if fits else f"{path}: the graph of other weights, or of another version of Unmask"


def _opened(path: str | os.PathLike[str]) -> zipfile.ZipFile:
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - a name may be any bytes
        # Opening a named pipe waits for a writer.
        raise GraphError(f"{path}: not a file")
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise GraphError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise GraphError(f"{path}: not a graph, or damaged: {error}") from error


def _info(path: str | os.PathLike[str], archive: zipfile.ZipFile) -> tuple[GraphInfo, dict[str, str]]:
    try:
        fields = json.loads(_raw(path, archive, _INFO))
        version, digests = fields["format_version"], dict(fields["sha256"])
        if version == FORMAT_VERSION:
            return GraphInfo.from_dict(fields), digests
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GraphError(f"{path}: not a graph, or damaged: {error}") from error
    raise GraphError(f"{path}: a graph of format {version}, and this version of Unmask reads {FORMAT_VERSION}")


def _entry(path: str | os.PathLike[str], archive: zipfile.ZipFile, name: str, digests: Mapping[str, str]) -> bytes:
    data = _raw(path, archive, name)
    if hashlib.sha256(data).hexdigest() != digests.get(name):
        raise GraphError(f"{path}: damaged: {name} has another sha256 than the graph says")
    return data


def _raw(path: str | os.PathLike[str], archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        entry = archive.getinfo(name)
        # Compressed entries could inflate to any size.
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > _MAX_BYTES:
            raise GraphError(f"{path}: not a graph: {name} is compressed, or has {entry.file_size} bytes")
        return archive.read(entry)
    except (KeyError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
        raise GraphError(f"{path}: not a graph, or damaged: {error}") from error
