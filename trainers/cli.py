"""`python -m trainers train|evaluate ...`: by argparse alone, for machines without the command's libraries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trainers.recipes import RECIPES
from trainers.run import TrainOptions, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train a recipe, or go on with it"))
    given = parser.parse_args(arguments)
    return int(given.call(given))


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fresh", action="store_true", help="delete a run of this name first")
    parser.add_argument("--branch", type=Path, help="decay from the last checkpoint of the run in this folder")
    parser.add_argument("--measure-input", action="store_true", help="time the loading of images alone")
    parser.add_argument("--show", action="store_true", help="print the config and end")
    parser.set_defaults(call=_train)


def _train(given: argparse.Namespace) -> int:
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


def _out(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _err(line: str) -> None:
    sys.stderr.write(f"error: {line}\n")
