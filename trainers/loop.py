"""The training loop: batches in, checkpoints out; it can be killed at any time and resumes with the same result."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from models.atomic import durable_rename
from models.precision import Precision, precision_for
from trainers.config import TrainConfig
from trainers.data.manifest import Manifest
from trainers.data.pairs import PairDataset, PairPlan, pair_loader
from trainers.depthwise import use_fast_gradients
from trainers.meter import Meter
from trainers.preparation import Preparation
from trainers.processes import Processes, joined_processes, stop_signals
from trainers.runlog import RunLog
from trainers.schedules import drop_rates, learning_rates
from trainers.start import RunError, claim, first_model, training_rows
from trainers.trainee import Trainee
from trainers.validation import ScoredSet, validate, validation_sets

LAST, BEST = "last.safetensors", "best.safetensors"


class StoppedError(RuntimeError):
    """The run was asked to stop (SIGINT or SIGTERM); its last checkpoint is in place."""


def train(
    config: TrainConfig,
    folder: Path,
    *,
    device: str = "auto",
    say: Callable[[str], None],
    stop_at_step: int | None = None,
) -> dict[str, float]:
    """Train or resume the run in `folder`.

    The best weights by validation are `best.safetensors` in it, the last ones `last.safetensors`; both hold the
    averaged weights, and the state next to the last ones holds the raw weights and everything that resuming needs.

    Args:
        config: the run; an existing run must have the same config.
        folder: of the run; created if missing.
        device: see `models.precision.best_device`.
        say: called with each line of progress.
        stop_at_step: stop at this step with a checkpoint, before the run is done.

    Returns:
        The metrics of the last validation.

    Raises:
        RunError: the folder holds a run of another config, or the manifest has no rows to train on.
        StoppedError: interrupted.
        models.pretrained.WeightsUnavailableError: the pretrained weights are not available.
        models.precision.DeviceError: no such device.
    """
    with joined_processes(device) as processes, stop_signals() as stopping:
        run = _Run(config, folder, processes, say)
        run.restore()
        return run.train(stopping, config.total_steps if stop_at_step is None else stop_at_step)


class _Run:
    def __init__(self, config: TrainConfig, folder: Path, processes: Processes, say: Callable[[str], None]) -> None:
        if config.batch_size % (2 * processes.world):
            raise RunError(f"a batch of {config.batch_size} does not split into pairs for {processes.world} processes")
        if config.data.augment.needs_video and find_spec("av") is None:
            raise RunError(
                "H.264 degradation needs PyAV, which is not installed: pip install av, or disable it with --set "
                "data.augment.h264_share=0, data.augment.platform.share=0 and data.augment.apart.h264_share=0"
            )
        self.config, self.folder, self.processes, self.say = config, folder, processes, say
        self.precision: Precision = precision_for(processes.device)
        self.manifest = training_rows(config)
        self.plan = PairPlan(self.manifest, config.data.pairs, config.seed)
        # The same first weights in all processes, and in a run that restarts before its first checkpoint.
        torch.manual_seed(config.seed)
        self.model, self.start = first_model(config)
        if processes.device.type == "cpu":
            use_fast_gradients(self.model)
        self.preparation = Preparation(
            config.losses,
            self.manifest,
            self.model.input_spec.geometry,
            processes.device,
            mixed_precision=config.mixed_precision,
        )
        # From here on the folder is this run's: what cannot start leaves none behind.
        claim(folder, config, processes)
        self.trainee = Trainee(
            self.model,
            label_smoothing=config.label_smoothing,
            mask_weight=config.mask_weight,
            losses=config.losses,
            teacher_widths=self.preparation.teacher_widths,
        )
        self.trainee.to(processes.device).to(memory_format=self.precision.memory_format)
        self.optimizer = self.model.configure_optimizer(
            config.optim.lr,
            config.optim.weight_decay,
            config.optim.layer_decay,
            head_lr_factor=config.optim.head_lr_factor,
            extra=self.trainee.auxiliary(),
        )
        self.schedule = learning_rates(self.optimizer, config)
        self.scaler = self.precision.scaler() if config.mixed_precision else torch.amp.GradScaler("cpu", enabled=False)
        # With its own warm-up: early averages forget the first weights.
        self.ema = ModelEmaV3(self.model, decay=config.ema_decay, use_warmup=True)
        self.step = 0
        self.best = -math.inf
        self.metrics: dict[str, float] = {}
        self.trained_s = 0.0

    def restore(self) -> None:
        """Resume from the last checkpoint, if it exists."""
        path = self.folder / LAST
        if not path.exists():
            return
        resume = self.model.load_checkpoint(path)
        state, extra = resume.state, resume.state["extra"]
        self.ema.module.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["scheduler"])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.trainee.load_auxiliary_state(extra)
        # A file may have been replaced under the same name.
        if tuple(extra.get("teachers", ())) != self.preparation.teacher_sha256:
            raise RunError(f"{self.folder}: the teachers' checkpoints are not those that the run started with")
        self.step, self.trained_s = resume.info.step, extra["trained_s"]
        # A branch of another run has no best weights of its own yet.
        self.best = extra["best"] if (self.folder / BEST).exists() else -math.inf
        self.metrics = dict(resume.info.metrics)

    def train(self, stopping: list[int], until: int) -> dict[str, float]:
        config, processes = self.config, self.processes
        log = RunLog(self.folder, enabled=processes.leads)
        if processes.leads:
            self._introduce()
        per_process = config.batch_size // processes.world
        dataset = PairDataset(
            self.plan,
            size_px=self.model.input_spec.size,
            augmentation=config.data.augment,
            blend=config.data.blend,
        )
        loader = pair_loader(
            dataset,
            batch_size=per_process,
            start=self.step * config.optim.accumulation,
            stop=until * config.optim.accumulation,
            workers=config.workers,
            rank=processes.rank,
            world=processes.world,
        )
        network: nn.Module = self.trainee
        if processes.world > 1:
            # BatchNorm's running statistics are the leader's; its batches are big enough alone.
            network = nn.parallel.DistributedDataParallel(network)
        if config.compile:
            network = torch.compile(network)  # type: ignore[assignment]
        self.trainee.train()
        sets = self._validation_sets()
        meter = Meter(self.step, config, self.trained_s)
        batches = iter(loader)
        saved_at = time.monotonic()
        while self.step < until:
            losses = self._step(network, batches, meter)
            if processes.any(bool(stopping)):
                self._save()
                raise StoppedError(f"stopped at step {self.step} of {config.total_steps}; the same command resumes it")
            if processes.leads and (line := meter.line(self.step, losses)):
                self.say(line.text)
                log.write(line.values)
            self.trained_s = meter.trained_s
            samples = self.step * config.samples_per_step
            before = samples - config.samples_per_step
            every = config.validation.every
            if sets and (samples // every > before // every or self.step == config.total_steps):
                self._validate(sets, log)
                meter.pause()
                saved_at = time.monotonic()
            elif processes.leads and time.monotonic() - saved_at >= config.checkpoint_every_s:
                self._save()
                meter.pause()
                saved_at = time.monotonic()
        self._save()
        if processes.leads and self.step == config.total_steps:
            if not (self.folder / BEST).exists():
                shutil.copyfile(self.folder / LAST, self.folder / BEST)
            log.draw()
        log.close()
        return self.metrics

    def _step(self, network: nn.Module, batches: Iterator[dict[str, Tensor]], meter: Meter) -> dict[str, Tensor]:
        """One optimizer step; the losses of its batches, averaged."""
        config = self.config
        # The random numbers of step n do not depend on interruptions before it.
        place = (config.seed, self.step, self.processes.rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        dropout, drop_path = drop_rates(config.schedule, self.model, self.step / config.total_steps)
        self.model.set_drop_rates(dropout, drop_path)
        self.optimizer.zero_grad(set_to_none=True)
        parts: dict[str, Tensor] = {}
        for number in range(config.optim.accumulation):
            with meter.waiting():
                batch = next(batches)
            result = network(self.preparation(batch, np.random.default_rng((*place, number))))
            self.scaler.scale(result["loss"] / config.optim.accumulation).backward()
            for name in (name for name in result if name.endswith("loss")):
                parts[name] = parts.get(name, 0) + result[name].detach() / config.optim.accumulation
        self.scaler.unscale_(self.optimizer)
        if config.optim.clip_norm > 0:
            parts["gradient_norm"] = nn.utils.clip_grad_norm_(self.trainee.parameters(), config.optim.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.ema.update(self.model, step=self.step)
        self.step += 1
        return parts

    def _validation_sets(self) -> list[ScoredSet]:
        if not self.processes.leads:
            return []
        manifest = Manifest.read(Path(self.config.data.manifest))
        return validation_sets(
            manifest,
            self.config.validation,
            self.model.input_spec.size,
            trained=[name for name, share in self.config.data.pairs.shares.items() if share > 0],
            blend=self.config.data.blend,
            say=self.say,
        )

    def _validate(self, sets: list[ScoredSet], log: RunLog) -> None:
        """Leader only: score the averaged weights, keep them if they are the best."""
        averaged = self.ema.module
        fpr = self.config.validation.false_alarm_fpr
        self.metrics = validate(averaged, sets, self.processes.device, fpr=fpr)
        samples = self.step * self.config.samples_per_step
        self.say(f"  {samples} samples: " + "  ".join(f"{name} {value:.4f}" for name, value in self.metrics.items()))
        log.write({"step": self.step, "samples": samples, **{f"val/{k}": v for k, v in self.metrics.items()}})
        better = self.metrics["selection"] > self.best
        self.best = max(self.best, self.metrics["selection"])
        self._save()
        if better:
            copy = self.folder / f".{BEST}.tmp"
            shutil.copyfile(self.folder / LAST, copy)
            durable_rename(copy, self.folder / BEST)

    def _save(self) -> None:
        if not self.processes.leads:
            return
        self.model.save_checkpoint(
            self.folder / LAST,
            epoch=self.step * self.config.samples_per_step // max(1, len(self.manifest)),
            optimizer=self.optimizer,
            scheduler=self.schedule,
            scaler=self.scaler,
            ema=self.ema.module.state_dict(),
            extra={
                **self.trainee.auxiliary_state(),
                "teachers": list(self.preparation.teacher_sha256),
                "best": self.best,
                "trained_s": self.trained_s,
            },
            step=self.step,
            name=self.config.recipe,
            metrics=self.metrics,
            data_manifest_sha256=self.manifest.sha256,
        )

    def _introduce(self) -> None:
        config = self.config
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        dtype = self.precision.autocast_dtype if config.mixed_precision else None
        self.say(
            f"{config.recipe}: {config.architecture}, {parameters:.1f} M parameters, {self.model.input_spec.size} px, "
            f"start: {self.start}; {len(self.manifest)} rows; {self.processes.device}, {dtype or torch.float32}; "
            f"step {self.step} of {config.total_steps} of {config.samples_per_step} images"
        )
        if teachers := self.preparation.describe():
            self.say(teachers)
