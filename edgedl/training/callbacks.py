"""What happens around the steps: averaged weights, the time limit, the record on disk, the progress line.

Their order matters and is fixed in ``callbacks_for``: the average must stand in for the weights before anything judges
or saves them, and the record must come last, when all other state of the epoch is settled.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from tqdm import tqdm

from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Row, Run

log = logging.getLogger("edgedl.training")


def averaged_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The tensors that are averaged: parameters and floating-point buffers (batch statistics)."""
    state: dict[str, Tensor] = network.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


class WeightAverage(Callback):
    """Exponential moving average of the weights, validated and kept in their place.

    After step t the decay is min(decay, (1+t)/(10+t)), so that the average forgets the initial weights in time however
    short the training.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing is averaged yet; `on_fit_start` copies the weights once they are on their device."""
        self.steps, self.average = 0, {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins with the initial weights, or takes what a checkpoint brought to the device."""
        tensors = averaged_tensors(_task(pl_module).network)
        if self.average:
            self.average = {name: self.average[name].to(tensor.device) for name, tensor in tensors.items()}
        else:
            self.average = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Moves the average one step towards the weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = list(averaged_tensors(_task(pl_module).network).values())
        torch._foreach_lerp_(list(self.average.values()), current, 1 - decay)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the average in the network's place."""
        self._swap(_task(pl_module).network)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the weights back."""
        self._swap(_task(pl_module).network)

    @torch.no_grad()
    def _swap(self, network: nn.Module) -> None:
        for name, tensor in averaged_tensors(network).items():
            kept = tensor.clone()
            tensor.copy_(self.average[name])
            self.average[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """The average and its number of steps."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues an average."""
        self.steps, self.average = state_dict["steps"], dict(state_dict["average"])


class TimeLimit(Callback):
    """Stops before an epoch that would not end in time, and cuts one short whose time is up."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self._start = self._epoch_start = math.nan

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes when the epoch began."""
        self._epoch_start = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Ends the epoch where the limit is over; validation still follows."""
        self._stop_if(trainer, time.monotonic() - self._start > self.seconds)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Looks one epoch ahead."""
        now = time.monotonic()
        self._stop_if(trainer, (now - self._start) + (now - self._epoch_start) > self.seconds)

    def _stop_if(self, trainer: pl.Trainer, over: bool) -> None:
        if trainer.world_size > 1:  # one clock per process, one decision for all
            over = trainer.strategy.reduce_boolean_decision(over, all=False)
        if over and not trainer.should_stop:
            if trainer.is_global_zero:
                log.info("the time limit of %.1f minutes stops the training", self.seconds / 60)
            trainer.should_stop = True


class Record(Callback):
    """Writes the run: a row per epoch, the weights that are kept, and the checkpoint to resume from."""

    def __init__(self, run: Run, options: TrainOptions, average: WeightAverage | None) -> None:
        self.run = run
        self.options = options
        self.average = average
        self.best: float | None = None
        self.seconds = 0.0  # of earlier sessions of this run
        self._rows: list[Row] = []
        self._start = math.nan

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keeps the rows of the epochs that a resumed run builds on; later ones are trained again."""
        self._rows = [row for row in self.run.history() if row["epoch"] <= trainer.current_epoch]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the epoch: its row, its weights if they are to be kept, and the checkpoint."""
        module = _task(pl_module)
        seconds = self.seconds + time.monotonic() - self._start
        results = module.validation_results
        row: Row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(seconds, 2),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "train_loss": module.mean_loss(),
            **{("validation_loss" if name == "loss" else name): value for name, value in results.items()},
        }
        self._rows.append(row)
        value = results[module.learning.monitor]
        better = self._is_better(value, module.learning.mode)
        if better:
            self.best = value
        if trainer.is_global_zero:
            self.run.write_history(self._rows)
            if better or self.options.keep == "last":
                weights = {**module.network.state_dict(), **(self.average.average if self.average else {})}
                self.run.save_best(weights, epoch=int(row["epoch"]), metric=module.learning.monitor, value=value)
            _report(row, self.options.epochs, module.learning.monitor, better)
        self._save_last(trainer, seconds)

    def _is_better(self, value: float, mode: str) -> bool:
        if not math.isfinite(value):
            return False
        return self.best is None or (value < self.best if mode == "min" else value > self.best)

    def _save_last(self, trainer: pl.Trainer, seconds: float) -> None:
        earlier, self.seconds = self.seconds, seconds  # the checkpoint must carry the time up to now
        temporary = self.run.last.with_name(".last.ckpt")
        trainer.save_checkpoint(temporary, weights_only=False)  # all processes take part, the first one writes
        self.seconds = earlier
        if trainer.is_global_zero:
            _settle(temporary, self.run.last)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far and the time spent."""
        return {"best": self.best, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues a record."""
        self.best, self.seconds = state_dict["best"], state_dict["seconds"]


def _settle(temporary: Path, final: Path) -> None:
    """Moves a finished file to its name, its content first."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)


def _report(row: Mapping[str, float], epochs: int, monitor: str, better: bool) -> None:
    hidden = ("epoch", "step", "seconds")
    shown = {name: value for name, value in row.items() if name not in hidden and "/" not in name}
    measures = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
    mark = f"  best {monitor}" if better else ""
    log.info("epoch %d/%d  %.0f s  %s%s", row["epoch"], epochs, row["seconds"], measures, mark)


class ProgressLine(Callback):
    """The steps of an epoch on one line of standard error, which is empty again when the epoch has ended."""

    bar: tqdm | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the line, in the first process."""
        if not trainer.is_global_zero:
            return
        epoch, steps = trainer.current_epoch + 1, len(_task(pl_module).train_dataloader())
        self.bar = tqdm(total=steps, desc=f"epoch {epoch}/{trainer.max_epochs}", unit=" steps", leave=False)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Draws the line anew, ten times a second at most."""
        if self.bar is not None:
            self.bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Clears the line for the epoch's report."""
        self._clear()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Clears the line for the message."""
        self._clear()

    def _clear(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _task(module: pl.LightningModule) -> TaskModule:
    """The module as what it is: these callbacks come with ``fit``, which takes nothing else."""
    return cast(TaskModule, module)


def callbacks_for(run: Run, options: TrainOptions, mode: str) -> list[Callback]:
    """The callbacks of a training, in the order that they need."""
    callbacks: list[Callback] = []
    average = WeightAverage(options.ema) if options.ema else None
    if average is not None:
        callbacks.append(average)
    if options.progress and sys.stderr.isatty():
        callbacks.append(ProgressLine())
    if options.patience is not None:
        # Judged at the end of validation, before the record is written, so that its count is part of the checkpoint.
        callbacks.append(
            EarlyStopping(
                "monitor", patience=options.patience, mode=mode, check_on_train_epoch_end=False, verbose=False
            )
        )
    if options.max_minutes is not None:
        callbacks.append(TimeLimit(options.max_minutes))
    callbacks.append(Record(run, options, average))
    return callbacks
