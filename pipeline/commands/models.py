"""List, show, fetch, build, convert, import and export architectures and weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import JsonTo
from pipeline.commands.output import check_written, echo, written_as_json
from pipeline.interop import Format

if TYPE_CHECKING:
    from rich.console import Console

    from models.base import BaseModel
    from models.zoo import ZooEntry

app = typer.Typer(
    help="List, show, fetch, build, convert, import and export architectures and weights.", no_args_is_help=True
)


@app.command("list")
def list_all(json_to: JsonTo = None) -> None:
    """List architectures with their defaults, and named weights with their location."""
    from models.zoo import commands, list_entries

    architectures = [_describe_architecture(name) for name in _architectures()]
    entries = list_entries()
    weights = [_describe_entry(entry) for entry in entries]
    if _written(json_to, {"architectures": architectures, "weights": weights}):
        return
    from rich.table import Table

    console = _console()
    table = Table("architecture", "default backbone", title="Architectures", title_justify="left")
    table.add_column("input px", justify="right")
    table.add_column("parameters", justify="right")
    for row in architectures:
        millions = f"{row['parameters'] / 1e6:.1f} M"
        table.add_row(row["architecture"], row["backbone"], str(row["input_size"]), millions)
    if architectures:
        console.print(table)
    else:
        console.print("Architectures need torch, which is not installed; weights with a graph do not.")
    table = Table("name", "kind", "network", "licence", title="Named weights", title_justify="left")
    table.add_column("here", overflow="fold")
    for entry, row in zip(entries, weights, strict=True):
        here = row["path"] or row["problem"] or f"no: {commands(entry)}"
        table.add_row(
            " or ".join(entry.names), row["kind"].replace("_", " "), row["network"] or "", row["licence"], here
        )
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="Architecture, named weights or checkpoint.")],
    json_to: JsonTo = None,
) -> None:
    """Show the details of an architecture, of named weights or of a checkpoint."""
    from models.checkpoint_header import CheckpointError
    from models.zoo import ZooError, list_entries, resolve

    entries = {name: entry for entry in list_entries() for name in entry.names}
    try:
        if name in _architectures():
            described = _describe_architecture(name)
        elif name in entries:
            described = _describe_entry(entries[name])
            if entries[name].kind == "detector" and described["path"] is not None:
                described["checkpoint"] = _describe_checkpoint(Path(described["path"]))
        else:
            described = _describe_checkpoint(resolve(name))
    except ZooError:
        architectures = ", ".join(_architectures()) or "known where torch and timm are installed"
        fail(
            f"no architecture, weights or file {name!r}; architectures: {architectures}; weights: {', '.join(entries)}"
        )
    except CheckpointError as error:
        fail(error)
    with exit_on_error():
        check_written({"--json": json_to}, [described.get("path")])
    if not _written(json_to, described):
        _print_fields(_console(), described)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="Name of the weights: see `unmask models list`.")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="PATH_OR_URI", help="Take the file from here instead.")
    ] = None,
    json_to: JsonTo = None,
) -> None:
    """Fetch named weights into the cache, checked against their sha256.

    Exit codes: 0 it is available, 2 no such name, 1 it cannot be fetched.
    """
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from models import zoo

    with exit_on_error():
        entry = zoo.find_entry(name)
    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
    try:
        console = _console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(entry.name, total=entry.size_bytes)
            path = zoo.pull(name, source=source, progress=lambda received, _: progress.update(task, completed=received))
    except zoo.ZooError as error:
        fail(error, code=1)
    _show_placed(entry, path, json_to)


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="Name of the weights: see `unmask models list`.")],
    json_to: JsonTo = None,
) -> None:
    """Build named weights from a pinned package and the difference that Unmask ships. Nothing is downloaded.

    The file equals the one that `unmask models pull` fetches, byte for byte.

    Exit codes: 0 it is available, 2 no such name, 1 it cannot be built.
    """
    from models import zoo

    with exit_on_error():
        entry = zoo.find_entry(name)
    try:
        path = zoo.build(name)
    except zoo.ZooError as error:
        fail(error, code=1)
    _show_placed(entry, path, json_to)


@app.command()
def difference(
    checkpoint: Annotated[Path, typer.Argument(help="A complete checkpoint that was trained from a pinned base.")],
    out: Annotated[Path, typer.Option(help="The difference to write.")],
    base: Annotated[
        str | None, typer.Option(help="Name of the base.", show_default="that of the checkpoint's backbone")
    ] = None,
    json_to: JsonTo = None,
) -> None:
    """For maintainers: write the difference of a checkpoint to its base, and check that it restores the checkpoint.

    Exit codes: 0 written, 2 it cannot be written.
    """
    import tempfile

    from models.checkpoint_header import read_info

    with exit_on_error():
        read_info(checkpoint)

    from models.bases import base_of_backbone, find_base
    from models.difference import apply_difference, save_difference

    with exit_on_error():
        check_written({"--out": out, "--json": json_to}, [checkpoint])
        backbone = str(read_info(checkpoint).config.get("backbone"))
        chosen = base_of_backbone(backbone) if base is None else find_base(base)
        difference_sha256 = save_difference(checkpoint, chosen, out)
        with tempfile.TemporaryDirectory() as folder:
            sha256 = apply_difference(out, Path(folder) / checkpoint.name)
    described = {
        "path": str(out),
        "size_bytes": out.stat().st_size,
        "sha256": difference_sha256,
        "base": chosen.name,
        "whole": {"sha256": sha256, "size_bytes": checkpoint.stat().st_size},
    }
    if _written(json_to, described):
        return
    echo(
        f"{out}: {out.stat().st_size / 2**20:.2f} MiB beyond {chosen.name}, sha256 {difference_sha256}\n"
        f"It restores {checkpoint.name}: {checkpoint.stat().st_size:_} bytes, sha256 {sha256}"
    )


@app.command("import")
def import_weights(
    file: Annotated[Path, typer.Argument(help="A checkpoint of another program.")],
    layout: Annotated[str, typer.Option(help="Its layout: deepfakebench-xception.")],
    out: Annotated[Path, typer.Option(help="The detector to write.")],
    json_to: JsonTo = None,
) -> None:
    """Make a detector from weights that were trained elsewhere. It has the same logits, and no thresholds yet.

    Exit codes: 0 written, 2 the layout does not match.
    """
    with exit_on_error():
        check_exist([file])

    from models.checkpoint import save_checkpoint
    from models.interop import import_detector

    with exit_on_error():
        check_written({"--out": out, "--json": json_to}, [file])
        detector = import_detector(file, layout)
        save_checkpoint(out, weights=detector.model.state_dict(), info=detector.info)
    described = _describe_checkpoint(out)
    if _written(json_to, described):
        return
    echo(
        f"{out}: {detector.info.architecture} of {described['values'] / 1e6:.1f} M values from {layout}, "
        f"sha256 {described['sha256']}\n"
        "Its crops are close to those it was trained on, but not equal; without calibration and thresholds "
        "all verdicts are inconclusive."
    )


@app.command("export")
def export_weights(
    weights: Annotated[str, typer.Argument(metavar="NAME|PATH", help="Named weights or a checkpoint.")],
    to: Annotated[Format, typer.Option(help="The format.")],
    out: Annotated[Path, typer.Option(help="The file; for OpenVINO the .xml, with the .bin next to it.")],
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store weights in half the bytes; they compute in fp32.")
    ] = False,
    batch: Annotated[str, typer.Option(help="dynamic, or the number of crops per call.")] = "dynamic",
    images: Annotated[
        Path | None, typer.Option(help="A face crop or a folder of them for the check, besides noise.", exists=True)
    ] = None,
    json_to: JsonTo = None,
) -> None:
    """Write a detector for other programs, and check that the file scores like it.

    Exit codes: 0 written, 2 it cannot be written this way, 1 its scores differed and it was not kept.
    """
    if batch != "dynamic" and not batch.isdecimal():
        fail(f"--batch must be dynamic or a number, got {batch!r}")
    with exit_on_error():
        check_weights(weights)

    import numpy as np

    from models.architectures import load_detector
    from pipeline.interop.check import face_crops, random_crops
    from pipeline.interop.export import export

    with exit_on_error():
        inputs = [_file_of(weights), *(images.rglob("*") if images is not None and images.is_dir() else [images])]
        check_written({"--out": out, "--json": json_to}, inputs)
        if to == "openvino":
            check_written({"--out": out.with_suffix(".bin"), "--json": json_to}, inputs)
        detector = load_detector(weights)
        size = detector.model.input_spec.size
        faces = face_crops(size, images)
        crops = np.concatenate([random_crops(size), faces])
        count = None if batch == "dynamic" else int(batch)
        exported = export(detector, to, out, crops, fp16=fp16, batch=count)
    check, noise = exported.check, len(crops) - len(faces)
    files = [str(file) for file in exported.files]
    scored = {"reader": check.reader, "random_crops": noise, "face_crops": len(faces)}
    distance = {"largest_difference": check.difference, "tolerance": check.tolerance}
    described = {"files": files, "size_bytes": exported.size_bytes, "check": scored | distance}
    if _written(json_to, described):
        return
    echo(f"{', '.join(map(str, exported.files))}: {exported.size_bytes / 2**20:.1f} MiB")
    echo(
        f"Log-odds by {check.reader} on {noise} random and {len(faces)} face crops differ from torch's by at most "
        f"{check.difference:.2g}; tolerance {check.tolerance:.2g}, relative beyond 1."
    )


@app.command()
def graph(
    weights: Annotated[
        str, typer.Argument(metavar="NAME|PATH", help="Named weights or a checkpoint; or mtcnn, the face detector.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The graph to write; needed for mtcnn.", show_default="in the cache, where scans find it"),
    ] = None,
    json_to: JsonTo = None,
) -> None:
    """Make the graph of a detector: OpenVINO runs it on a CPU without torch. Making it needs torch.

    A scan finds a graph in the cache, or next to the weights under the same name with the suffix .graph.

    Exit codes: 0 written, 2 it cannot be made, 1 it cannot be written.
    """
    import hashlib

    with exit_on_error():
        if weights != "mtcnn":
            check_weights(weights)

    from pipeline.detectors import load
    from pipeline.faces.mtcnn_graph import make_mtcnn_graph
    from pipeline.graphs.format import graphs_dir, pack, write_graph
    from pipeline.graphs.make import make_graph

    if out is not None and str(out) == "-":
        fail("--out takes a file: graphs are not written to standard output")
    with exit_on_error():
        check_written({"--out": out, "--json": json_to}, [_file_of(weights)])
        if weights == "mtcnn":
            if out is None:
                fail("name a file with --out: MTCNN's graph comes with the package, and scans take that one")
            made = make_mtcnn_graph()
        else:
            detector = load(architecture=None, weights=weights, untrained=False)
            made = make_graph(detector.model(), detector.sha256)
        path = out or graphs_dir() / made.info.filename
        try:
            write_graph(path, made)
        except OSError as error:
            fail(f"{path}: cannot be written: {error.strerror}", code=1)
    described = {"path": str(path), "size_bytes": path.stat().st_size, **made.info.to_dict()}
    if _written(json_to, described | {"sha256": hashlib.sha256(pack(made)).hexdigest()}):
        return
    versions = ", ".join(f"{name} {version}" for name, version in made.info.converter.items())
    echo(f"{path}: {path.stat().st_size / 2**20:.1f} MiB, by {versions}, of weights {made.info.weights_sha256}")


@app.command()
def rates(
    evaluation: Annotated[Path, typer.Argument(help="What `unmask evaluate --json` wrote.")],
    out: Annotated[Path, typer.Option(help="The file of rates to write.")],
) -> None:
    """Make the table of measured error rates that evidence packs show: how often reals and fakes got each label.

    It belongs to the weights that were evaluated. Next to packaged weights it is NAME.rates.json; others are named by
    `unmask evidence --rates FILE`.

    Exit codes: 0 written, 2 not an evaluation of crops by weights with thresholds.
    """
    import json

    from models.atomic import atomic_write
    from models.error_rates import RateTable

    with exit_on_error():
        check_exist([evaluation])
        check_written({"--out": out}, [evaluation])
        try:
            report = json.loads(evaluation.read_bytes())
        except (ValueError, RecursionError) as error:
            fail(f"{evaluation}: not JSON: {error}")
        table = RateTable.of_evaluation(report)
        with atomic_write(out) as file:
            file.write(table.to_json())
    reals, fakes = table.whole.reals, table.whole.fakes
    echo(f"{out}: rates of {table.model} on {reals.total:,} reals and {fakes.total:,} fakes, {table.measured_on}")


def _file_of(weights: str) -> Path | None:
    """The file that these weights are read from, if it is here."""
    from models.zoo import ZooError, resolve

    try:
        return resolve(weights)
    except ZooError:
        return None


def _architectures() -> list[str]:
    """The architectures that can be built here."""
    from models.devices import torch_installed

    if not torch_installed():
        return []
    from models.architectures import list_architectures

    return list_architectures()


def _describe_architecture(name: str) -> dict[str, Any]:
    import dataclasses

    model = _on_no_device(name)
    hints = get_type_hints(type(model.config))
    return {
        "architecture": name,
        "description": (type(model).__doc__ or "").strip().partition("\n")[0],
        "backbone": model.config.backbone,
        "input_size": model.input_spec.size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "options": {
            field.name: {"type": _type_name(hints[field.name]), "default": getattr(model.config, field.name)}
            for field in dataclasses.fields(model.config)
        },
    }


def _type_name(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _on_no_device(name: str) -> BaseModel:
    """The architecture with its default options; its parameters have shapes but no memory."""
    import torch

    from models.architectures import get_model

    with torch.device("meta"):
        return get_model(name, pretrained=False)


def _show_placed(entry: ZooEntry, path: Path, json_to: Path | None) -> None:
    if not _written(json_to, _describe_entry(entry)):
        echo(f"{entry.name}: {path}")


def _written(json_to: Path | None, value: object) -> bool:
    with exit_on_error():
        return written_as_json(json_to, value)


def _describe_entry(entry: ZooEntry) -> dict[str, Any]:
    import dataclasses

    from models.checkpoint_header import CheckpointError, read_info
    from models.zoo import ZooError, locate

    problem = network = None
    try:
        path = locate(entry)
        if path is not None and entry.kind == "detector":
            network = read_info(path).network
    except (CheckpointError, ZooError) as error:
        path, problem = None, str(error)
    return {
        **dataclasses.asdict(entry),
        "delivery": entry.delivery,
        "network": network,
        "path": path and str(path),
        "problem": problem,
    }


def _describe_checkpoint(path: Path) -> dict[str, Any]:
    import hashlib
    import math

    from models.checkpoint_header import read_info, read_shapes, state_path

    info, shapes = read_info(path), read_shapes(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "sha256": sha256,
        "tensors": len(shapes),
        "values": sum(math.prod(shape) for shape in shapes.values()),
        "resumable": state_path(path).is_file(),
        "network": info.network,
        **info.to_dict(),
    }


def _print_fields(console: Console, fields: Mapping[str, Any], indent: str = "") -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value.keys() == {"type", "default"}:
            console.print(f"{indent}{name} = {_readable(value['default'])}  ({value['type']})")
        elif isinstance(value, Mapping) and value:
            console.print(f"{indent}{name}")
            _print_fields(console, value, indent + "  ")
        else:
            console.print(f"{indent}{name}: {_readable(value)}")


def _readable(value: object) -> str:
    if value is None or value in ({}, [], ()):
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(item) for item in value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:_}" if isinstance(value, int) and value >= 100_000 else str(value)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    # Paths and names are printed as they are, brackets and colons included. Wide, so that tables keep their columns.
    width = None if sys.stdout.isatty() else 140
    return Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False, soft_wrap=True)
