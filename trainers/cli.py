"""`python -m trainers train|evaluate|calibrate|distil ...`, with argparse only, without typer and rich."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.visible import escape_unencodable
from trainers.recipes import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train a recipe, or resume it"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a detector on manifests"))
    _add_calibrate(commands.add_parser("calibrate", help="choose thresholds and write the detector to ship"))
    _add_distil(commands.add_parser("distil", help="store teachers' outputs for images, for distillation"))
    escape_unencodable()
    given = parser.parse_args(arguments)
    try:
        return int(given.call(given))
    except ImportError as error:
        _err(f"training needs torch, timm and more: pip install 'unmask[train]' ({error})")
        return 2


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fresh", action="store_true", help="delete a run of this name first")
    parser.add_argument("--branch", type=Path, help="decay from the last checkpoint of the run in this folder")
    parser.add_argument("--measure-input", action="store_true", help="time the loading of images alone")
    parser.add_argument("--show", action="store_true", help="print the config and exit")
    parser.set_defaults(call=_train)


def _train(given: argparse.Namespace) -> int:
    from trainers.run import TrainOptions, run

    options = TrainOptions(
        recipe=given.recipe,
        settings=tuple(given.settings),
        manifest=given.manifest,
        name=given.name,
        device=given.device,
        fresh=given.fresh,
        branch=given.branch,
        measure_input=given.measure_input,
        show=given.show,
    )
    return run(options, say=_out, fail=_err)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest", type=Path, action="append", required=True, help="or a folder of clips; repeatable"
    )
    parser.add_argument("--weights", help="checkpoint path or zoo name; default: the weights shipped with Unmask")
    parser.add_argument("--split")
    parser.add_argument("--half", choices=("selection", "report"))
    parser.add_argument("--ladder", choices=("full", "short", "none"), default="full")
    parser.add_argument("--ladder-rows", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--predictions", type=Path)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(call=_evaluate)


def _evaluate(given: argparse.Namespace) -> int:
    from pipeline.scanner_options import ScannerOptions
    from trainers.evaluation.run import EvaluateOptions
    from trainers.evaluation.run import run as evaluate

    return evaluate(
        EvaluateOptions(
            manifests=tuple(given.manifest),
            weights=given.weights,
            split=given.split,
            half=given.half,
            ladder=given.ladder,
            ladder_rows=given.ladder_rows,
            json_path=given.json,
            report=given.report,
            predictions=given.predictions,
            resamples=given.resamples,
            seed=given.seed,
            scan=ScannerOptions(backend=given.backend, device=given.device),
        )
    )


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("weights", type=Path)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--split", default="val")
    parser.add_argument("--held-out", default="held_out")
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--misses", type=float, default=0.1)
    parser.add_argument("--fp32", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int)
    parser.set_defaults(call=_calibrate)


def _calibrate(given: argparse.Namespace) -> int:
    from trainers.calibrate import CalibrateOptions
    from trainers.calibrate import run as calibrate

    options = CalibrateOptions(
        weights=given.weights,
        manifest=given.manifest,
        out=given.out,
        name=given.name,
        split=given.split,
        held_out=given.held_out,
        fpr=given.fpr,
        misses=given.misses,
        half=not given.fp32,
        device=given.device,
        rows=given.rows,
    )
    return calibrate(options, say=_out, fail=_err)


def _add_distil(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--teacher", action="append", required=True, help="checkpoint path or zoo name; repeatable")
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="file of teacher outputs; an existing one is continued")
    parser.add_argument("--split", default="train")
    parser.add_argument("--uncalibrated", action="store_true", help="use uncalibrated log-odds")
    parser.add_argument("--device", default="auto")
    parser.set_defaults(call=_distil)


def _distil(given: argparse.Namespace) -> int:
    from trainers.teacher_cache import PrepareOptions
    from trainers.teacher_cache import run as distil

    options = PrepareOptions(
        teachers=tuple(given.teacher),
        manifest=given.manifest,
        out=given.out,
        split=given.split,
        calibrated=not given.uncalibrated,
        device=given.device,
    )
    return distil(options, say=_out, fail=_err)


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _err(line: str) -> None:
    sys.stderr.write(f"Error: {line}\n")
