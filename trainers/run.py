"""`unmask train` behind its options: find the recipe, apply the settings, train; plain text, without typer and rich."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import UnmaskError
from trainers.config import SettingError, TrainConfig, from_json, to_json, with_settings
from trainers.recipes import find_recipe

EXIT_DONE, EXIT_BAD_INPUT, EXIT_STOPPED = 0, 2, 130
_MEASURED_BATCHES = 30


@dataclass(frozen=True)
class TrainOptions:
    """Options of `unmask train`.

    Attributes:
        recipe: name of a recipe.
        settings: `key=value`, applied in their order.
        manifest: the training data; same as the setting `data.manifest`.
        name: of the run's folder within the folder of all runs; default: the recipe's name.
        device: see `models.precision.best_device`.
        fresh: delete a run of this name first.
        branch: folder of a run with a constant rate, from whose last checkpoint this one decays.
        measure_input: time the loading of images alone, and train nothing.
        show: print the config, and train nothing.
    """

    recipe: str
    settings: tuple[str, ...] = ()
    manifest: Path | None = None
    name: str | None = None
    device: str = "auto"
    fresh: bool = False
    branch: Path | None = None
    measure_input: bool = False
    show: bool = False


def runs_dir() -> Path:
    """Folder of all runs: `UNMASK_RUNS`, or `~/.cache/unmask/runs`."""
    return Path(os.environ.get("UNMASK_RUNS") or "~/.cache/unmask/runs").expanduser()


def run(options: TrainOptions, say: Callable[[str], None], fail: Callable[[str], None]) -> int:
    """Train according to the options; returns the exit code.

    Args:
        options: see `TrainOptions`.
        say: called with lines of progress.
        fail: called with the error.
    """
    from trainers.loop import StoppedError, train

    try:
        config = _config(options)
        if options.show:
            say(to_json(config))
            return EXIT_DONE
        if options.measure_input:
            measure_input(config, say)
            return EXIT_DONE
        folder = runs_dir() / (options.name or options.recipe)
        if options.fresh and folder.exists():
            shutil.rmtree(folder)
        if options.branch is not None:
            _only_the_decay(options)
            config = branch(options.branch, folder, config)
        say(f"run: {folder}")
        if not (folder / "config.json").exists():
            say(to_json(config))
        metrics = train(config, folder, device=options.device, say=say)
        say("done: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        return EXIT_DONE
    except StoppedError as error:
        fail(str(error))
        return EXIT_STOPPED
    except (UnmaskError, ValueError, OSError) as error:
        fail(f"{error}")
        return EXIT_BAD_INPUT


def branch(parent: Path, folder: Path, config: TrainConfig) -> TrainConfig:
    """Start a run that decays from the last checkpoint of a constant-rate run; that run can continue.

    Args:
        parent: folder of the other run.
        folder: of the new run.
        config: its `schedule.decay_samples` gives the length of the decay.

    Returns:
        The new run's config: the parent's, with its samples ending after the decay.

    Raises:
        SettingError: the other run has no constant rate, or already decays.
    """
    from trainers.loop import LAST
    from trainers.start import CONFIG

    if (folder / CONFIG).exists():
        return from_json(TrainConfig, (folder / CONFIG).read_text())
    if not (parent / LAST).exists():
        raise SettingError(f"{parent} holds no run with a checkpoint to branch from")
    from models.checkpoint import read_info

    stored = from_json(TrainConfig, (parent / CONFIG).read_text())
    done = read_info(parent / LAST).step * stored.samples_per_step
    decay = config.schedule.decay_samples
    if stored.schedule.kind != "constant" or done > stored.samples - stored.schedule.decay_samples:
        raise SettingError(f"{parent} has no constant rate at its step now; only such a run can be branched")
    folder.mkdir(parents=True, exist_ok=True)
    # The state first: a checkpoint without it would look like one that cannot be resumed.
    for file in (LAST.replace(".safetensors", ".state"), LAST):
        shutil.copyfile(parent / file, folder / file)
    schedule = replace(stored.schedule, decay_samples=decay)
    return replace(stored, recipe=config.recipe, schedule=schedule, samples=done + decay)


def _only_the_decay(options: TrainOptions) -> None:
    """A branch is its parent with a decay: other settings would be ignored silently."""
    others = [setting for setting in options.settings if not setting.startswith("schedule.decay_samples=")]
    if others or options.manifest is not None:
        raise SettingError(
            "a branch takes everything but schedule.decay_samples from its parent; leave out "
            + ", ".join([*others, *(["--manifest"] if options.manifest is not None else [])])
        )


def measure_input(config: TrainConfig, say: Callable[[str], None]) -> float:
    """Images per second that the loader yields when nothing else runs; printed and returned."""
    from trainers.data.pairs import PairDataset, PairPlan, pair_loader
    from trainers.start import training_rows

    dataset = PairDataset(
        PairPlan(training_rows(config), config.data.pairs, config.seed),
        size_px=int(config.model.get("input_size", 224)),
        augmentation=config.data.augment,
        blend=config.data.blend,
    )
    loader = pair_loader(
        dataset, batch_size=config.batch_size, start=0, stop=_MEASURED_BATCHES + 10, workers=config.workers
    )
    batches = iter(loader)
    # Batches prefetched while the workers started do not count.
    for _ in range(10):
        next(batches)
    started = time.perf_counter()
    for _ in range(_MEASURED_BATCHES):
        next(batches)
    rate = _MEASURED_BATCHES * config.batch_size / (time.perf_counter() - started)
    say(f"input pipeline alone, {config.workers} workers: {rate:.1f} img/s")
    return rate


def _config(options: TrainOptions) -> TrainConfig:
    config = find_recipe(options.recipe)
    settings = options.settings
    if options.manifest is not None:
        settings = (*settings, f"data.manifest={options.manifest.expanduser().absolute()}")
    return with_settings(config, settings)
