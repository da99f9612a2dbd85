"""Drift: what arrives against what the weights were made on. References come from crops, too, so this is here."""

from __future__ import annotations

import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.errors import exit_on_error, fail
from pipeline.commands.inputs import check_exist, check_weights
from pipeline.commands.options import Backend, Device, Weights
from pipeline.commands.output import check_written, echo
from web.commands.drift import check, months, reference_of_service, sample

if TYPE_CHECKING:
    from pipeline.drift.reference import Reference

app = typer.Typer(help="Whether what arrives has drifted, and how the weights do by month.", no_args_is_help=True)
app.command()(check)
app.command()(sample)
app.command()(months)


class Label(StrEnum):
    """Which crops of a manifest make a reference."""

    REAL = "real"
    FAKE = "fake"
    ALL = "all"


@app.command()
def reference(
    out: Annotated[Path, typer.Option(help="File to write, JSON.")],
    manifest: Annotated[Path | None, typer.Option(help="Of crops, .csv or .parquet: needs torch.")] = None,
    weights: Weights = None,
    split: Annotated[str, typer.Option(help="Of the manifest.")] = "val",
    label: Annotated[
        Label, typer.Option(help="Of the manifest: real, where few of the videos that arrive are forged.")
    ] = Label.ALL,
    service: Annotated[Path | None, typer.Option(help="Folder of a service: what it judged is the reference.")] = None,
    since: Annotated[
        datetime | None, typer.Option(help="With --service: arrived from this day on, UTC.", formats=["%Y-%m-%d"])
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(help="With --service: and before this day, UTC.", formats=["%Y-%m-%d"])
    ] = None,
    backend: Backend = "auto",
    device: Device = "auto",
) -> None:
    """Write what drift is measured against, from a manifest of crops or from what a service judged.

    The file has counts in fixed bins for each video; it has no pictures, embeddings, names or ids.

    Exit codes: 0 done, 2 bad options or too few videos.
    """
    with exit_on_error():
        if (manifest is None) == (service is None):
            fail("name either --manifest or --service")
        if service is None and (since or until):
            fail("--since and --until go with --service")
        if service is not None and weights is not None:
            fail("--weights goes with --manifest: a service has judged already")
        check_exist([manifest, service])
        check_written({"--out": out}, [manifest])
        if manifest is not None:
            check_weights(weights)
            made = _of_manifest(manifest, weights, split, label, backend, device)
        else:
            made = reference_of_service(service, since, until)  # type: ignore[arg-type]  # one of them is there
        from pipeline.drift.reference import write_reference

        write_reference(out, made)
    for name, measure in made.measures.items():
        echo(f"{name}: {len(measure.videos)} videos")
    echo(f"{out}: {out.stat().st_size / 1024:.0f} KiB, scores by {made.model or 'unknown weights'}")


def _of_manifest(manifest: Path, weights: str | None, split: str, label: Label, backend: str, device: str) -> Reference:
    from models.zoo import default_detector
    from pipeline.drift.reference import DriftError, Origin, make_reference
    from trainers.data.manifest import LABELS, Manifest
    from trainers.evaluation.console import announce
    from trainers.evaluation.drift import manifest_counts
    from trainers.evaluation.panel import load_panel

    whole = Manifest.read(manifest)
    rows = whole.where(split=split)
    if label is not Label.ALL:
        rows = rows.take(rows.label == LABELS[label.value])
    if not len(rows):
        raise DriftError(f"{manifest} has no such rows of the split {split!r}")
    panel = load_panel(weights or default_detector())
    counts = manifest_counts(rows, panel, backend=backend, device=device, progress=announce("crops", len(rows)))
    return make_reference(
        counts,
        Origin(kind="manifest", manifest_sha256=whole.sha256, split=split, label=label.value),
        weights_sha256=[member.sha256 for member in panel.members],
        model=panel.info.name or panel.info.architecture,
        made_at=round(time.time(), 3),
    )
