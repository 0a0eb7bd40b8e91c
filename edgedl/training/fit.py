"""``fit``: trains a task's module into a run folder."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from edgedl.training.batches import Batches, BatchSource, Samples
from edgedl.training.callbacks import callbacks_for
from edgedl.training.lightning_module import LIGHTNING_LOGGERS, TaskModule, ignore_what_users_cannot_mend
from edgedl.training.options import TrainOptions
from edgedl.training.processes import as_launched, is_first_process, launched, ready
from edgedl.training.reasons import reasons
from edgedl.training.run import Row, Run
from exporters.denormals import flush_denormals
from runtime.errors import DeviceError, InputError
from runtime.memory import large_blocks_kept

log = logging.getLogger("edgedl.training")

Data = Samples | BatchSource


@dataclass(frozen=True, slots=True)
class FitResult:
    """What came out of a training, read back from the run folder.

    Attributes:
        metric: Name of the measure that chose the best epoch.
        best: Its value in the epoch whose weights were kept.
        best_epoch: That epoch, from 1.
        epochs: Epochs trained in all, earlier sessions of the run included.
        seconds: Time of this call.
        history: A row per epoch, as in ``metrics.csv``.
    """

    metric: str
    best: float
    best_epoch: int
    epochs: int
    seconds: float
    history: tuple[Row, ...]


def fit(
    module: TaskModule,
    train: Data,
    validation: Data | Mapping[str, Data],
    run: Run,
    options: TrainOptions | None = None,
) -> FitResult:
    """Trains ``module.network`` and leaves it with the weights that are kept, on the CPU and in evaluation mode.

    Checkpoints and ``metrics.csv`` go into the run folder, and nothing is written elsewhere. After an
    interruption, the same call with ``resume=True`` ends with the same weights, bit for bit, as an uninterrupted one.

    Args:
        module: Network, learning and preparation.
        train: Training samples, or a source of batches.
        validation: The same for validation, measured after every epoch; a mapping measures several sets by name, and
            the mean over them chooses the best epoch.
        run: Where to write.
        options: How to train.

    Raises:
        InputError: Options that do not fit the data or the run.
        DeviceError: A GPU was asked for and there is none.
        CheckFailedError: The loss is no number any more.
    """
    options = as_launched(options or TrainOptions())
    if run.last.exists() and not options.resume and is_first_process():
        raise InputError(f"{run.path} has been trained already; continue it with --resume, or choose another folder")
    start = time.monotonic()
    sets = dict(validation) if isinstance(validation, Mapping) else {"validation": validation}
    if not sets:
        raise InputError("without validation data there is no best epoch")
    module.configure(
        options,
        _source(train, options, train=True),
        {name: _source(data, options, train=False) for name, data in sets.items()},
        len(train) if isinstance(train, Samples) else None,
    )
    checkpoint = run.last if options.resume and run.last.exists() else None
    if options.channels_last:
        module.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    # Lightning trains in the mode that it finds, and a network that comes with weights mostly comes in evaluation mode.
    module.network.train()
    ready()
    with _surroundings(options.threads), flush_denormals(), large_blocks_kept(), _quiet_lightning(), reasons():
        trainer = _trainer(module, run, options)
        try:
            trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
        except SystemExit as error:  # Lightning turns an interrupt into an exit; who called should see what it was
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
    module.network.to("cpu").eval()
    module.network.load_state_dict(run.best_weights())
    history = run.history()
    return _result(history, module, options, time.monotonic() - start)


def _source(data: Data, options: TrainOptions, *, train: bool) -> BatchSource:
    if not isinstance(data, Samples):
        return data
    return Batches(data, options.batch_size if train else 2 * options.batch_size, train=train, seed=options.seed)


def _result(history: list[Row], module: TaskModule, options: TrainOptions, seconds: float) -> FitResult:
    name, mode = module.learning.monitor, module.learning.mode
    best = (
        history[-1] if options.keep == "last" else (min if mode == "min" else max)(history, key=lambda row: row[name])
    )
    return FitResult(name, best[name], int(best["epoch"]), int(history[-1]["epoch"]), seconds, tuple(history))


def _trainer(module: TaskModule, run: Run, options: TrainOptions) -> pl.Trainer:
    if options.device == "gpu" and not torch.cuda.is_available():
        raise DeviceError("a GPU was asked for, but torch finds none; install torch for CUDA, or train on the cpu")
    on_gpu = options.device == "gpu" or (options.device == "auto" and torch.cuda.is_available())
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=_strategy(options, rests=module.rests),
        plugins=[*_without_requeueing()],
        precision="bf16-mixed" if options.bf16 else "32-true",
        max_epochs=options.epochs,
        callbacks=callbacks_for(run, options, module.learning.mode),
        default_root_dir=run.path,
        # The record is ours: see edgedl/training/callbacks.py.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # batches divide themselves
        inference_mode=False,  # tensors swapped during validation must stay usable in training
    )


def _strategy(options: TrainOptions, *, rests: bool) -> str:
    """Several processes on one machine are started from this one, so that no script is run a second time.

    Processes that wait for each other's gradients must know that some parameters have none while they rest.
    """
    if options.strategy != "auto" or options.devices * options.num_nodes == 1:
        return options.strategy
    started = launched() is not None or "LOCAL_RANK" in os.environ
    name = "ddp_spawn" if options.num_nodes == 1 and not started else "ddp" if rests else "auto"
    return f"{name}_find_unused_parameters_true" if rests else name


def _without_requeueing() -> list[SLURMEnvironment]:
    """Lightning would answer Slurm's signal by a job that begins anew, and the run's folder is in use by then."""
    under_slurm = launched() is not None and "TORCHELASTIC_RUN_ID" not in os.environ
    return [SLURMEnvironment(auto_requeue=False)] if under_slurm else []


@contextlib.contextmanager
def _surroundings(threads: int | None) -> Iterator[None]:
    """Gives the process its threads, random state and interrupt handler back."""
    before = torch.get_num_threads()
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(before)
        if in_main:
            signal.signal(signal.SIGINT, handler)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silences what Lightning says about itself; its warnings about the training still come through."""
    loggers = [logging.getLogger(name) for name in LIGHTNING_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            ignore_what_users_cannot_mend()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
