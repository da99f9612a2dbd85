"""Deepfake detectors as scanners use them: what a checkpoint's header says, and its graph or its torch model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from models.checkpoint_header import CheckpointError, read_info
from models.checkpoint_info import CheckpointInfo
from models.devices import INSTALL_TORCH, torch_installed
from models.spec import InputSpec
from models.zoo import default_detector, packaged_dir, resolve, split_names
from pipeline.graphs.format import (
    SUFFIX,
    Graph,
    GraphError,
    find_graphs,
    graphs_dir,
    read_graph,
    why_unfit,
    write_graph,
)

if TYPE_CHECKING:
    from models.base import BaseModel

log = logging.getLogger(__name__)

UNTRAINED_SEED = 0


@dataclass(frozen=True)
class Detector:
    """A deepfake detector, with what its verdicts say of it. torch is imported only where its model is needed.

    Attributes:
        architecture: its name in the registry.
        network: architecture and backbone.
        input_spec: the crops that it takes.
        info: header of its checkpoint; None for an untrained one.
        sha256: of its checkpoint, or of its weights if they were never saved.
        graph_files: its graphs on this machine; the first one that is whole is taken.
        kept: a graph that is made is kept in the cache.
    """

    architecture: str
    network: str
    input_spec: InputSpec
    info: CheckpointInfo | None
    sha256: str
    graph_files: tuple[Path, ...] = ()
    kept: bool = False
    _build: Callable[[], BaseModel] = field(repr=False, compare=False, kw_only=True)

    @classmethod
    def of(cls, model: BaseModel, info: CheckpointInfo | None, sha256: str, *, kept: bool = False) -> Detector:
        """The detector with this model."""
        return cls(model.architecture, model.network, model.input_spec, info, sha256, kept=kept, _build=lambda: model)

    @property
    def name(self) -> str:
        """Name for the record."""
        return (self.info.name if self.info else None) or self.architecture

    def model(self) -> BaseModel:
        """The torch model in evaluation mode.

        Raises:
            CheckpointError: the weights have changed since they were loaded, or do not fit.
            GraphError: torch is not installed.
        """
        return self._build()

    def graph(self) -> Graph:
        """The graph: one of `graph_files`, else made from the model with torch, and kept for later processes.

        Raises:
            CheckpointError: as `model`.
            GraphError: it does not exist, or is damaged, and torch is not installed.
        """
        damaged: GraphError | None = None
        for path in dict.fromkeys((*self.graph_files, *find_graphs(self.sha256, self.input_spec, [graphs_dir()]))):
            try:
                return read_graph(path)
            except GraphError as error:
                log.warning("a graph cannot be read: %s", error)
                damaged = error
        if damaged is not None and not torch_installed():
            raise damaged
        from pipeline.graphs.make import make_graph

        made = make_graph(self.model(), self.sha256)
        if self.kept:
            path = graphs_dir() / made.info.filename
            try:
                write_graph(path, made)
            except OSError as error:
                log.warning("%s: the graph cannot be kept, so each process makes it again: %s", path, error)
        return made


def load(*, architecture: str | None, weights: str | Path | None, untrained: bool) -> Detector:
    """The detector that was asked for. Its weights are read only if it has no graph here.

    Args:
        architecture: one of `list_architectures()`; weights bring their own, which must be the same if both are given.
        weights: a checkpoint's path or a zoo name; None takes the ones that come with the package.
        untrained: random weights from seed 0, for trying the line out; their scores mean nothing.

    Raises:
        CheckpointError: the weights cannot be read, or are of another architecture.
        GraphError: torch is needed and not installed.
        ValueError: unknown architecture, or both weights and `untrained`.
        ZooError: the weights are neither a file nor a name, or are not here.
    """
    if untrained and weights is not None:
        raise ValueError("either weights or untrained is wanted, not both")
    if untrained:
        return _untrained(architecture or "xception")
    named = weights or default_detector()
    path = resolve(named)
    info = read_info(path)
    if architecture not in (None, info.architecture):
        raise ValueError(f"{named} holds {info.architecture} weights, not {architecture}")
    sha256 = _sha256(path)
    # Copies of the shipped weights have the shipped graph.
    near = [path.with_suffix(SUFFIX), packaged_dir() / f"{default_detector()}{SUFFIX}"]
    unfit = {file: why_unfit(file, sha256, info.input_spec) for file in near if file.exists()}
    graphs = [file for file, why in unfit.items() if why is None]
    graphs += find_graphs(sha256, info.input_spec, [graphs_dir()])
    if not graphs:
        return Detector.of(_load(path, sha256, unfit.get(near[0])), info, sha256, kept=True)
    return Detector(
        info.architecture,
        info.network,
        info.input_spec,
        info,
        sha256,
        graph_files=tuple(graphs),
        kept=True,
        _build=lambda: _load(path, sha256),
    )


def load_all(*, architecture: str | None, weights: str | Path | None, untrained: bool) -> tuple[Detector, ...]:
    """The detector that was asked for, or the members of an ensemble: weights with commas between.

    Args:
        architecture: as for `load`; of an ensemble, that of every member.
        weights: as for `load`, or several.
        untrained: as for `load`.

    Raises:
        ValueError: as `load`; or the same weights are named twice.
        CheckpointError: as `load`.
        GraphError: as `load`.
        ZooError: as `load`.
    """
    if weights is None:
        return (load(architecture=architecture, weights=None, untrained=untrained),)
    names = [Path(name) if isinstance(name, Path) else str(name) for name in split_names(weights)]
    members = tuple(load(architecture=architecture, weights=name, untrained=untrained) for name in names)
    if len({member.sha256 for member in members}) < len(members):
        raise ValueError(f"{weights}: an ensemble needs different weights, and some are named twice")
    return members


def _untrained(architecture: str) -> Detector:
    _require_torch("random weights need torch")
    import torch

    from models.architectures import get_model
    from models.checkpoint import weights_sha256

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(UNTRAINED_SEED)
        model = get_model(architecture, pretrained=False).eval()
    return Detector.of(model, None, weights_sha256(model.state_dict()))


def _load(path: Path, sha256: str, unfit: str | None = None) -> BaseModel:
    if unfit is None:
        _require_torch(f"{path}: there is no graph of these weights here, and making one needs torch")
    elif path.parent == packaged_dir() and not torch_installed():
        raise GraphError(f"{unfit}; it comes with the package: reinstall unmask")
    else:
        _require_torch(f"{unfit}; making another one needs torch")
    from models.architectures import load_detector

    loaded = load_detector(path)
    if loaded.sha256 != sha256:
        raise CheckpointError(f"{path}: has changed while it was read: sha256 {loaded.sha256}, not {sha256}")
    return loaded.model


def _require_torch(what: str) -> None:
    if not torch_installed():
        raise GraphError(
            f"{what}, which is not installed: {INSTALL_TORCH}; or make the graph elsewhere by "
            "`unmask models graph --out`, and put it next to the weights with the suffix .graph"
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
