"""The one Lightning module of all tasks: a network, how it learns, and how its batches are prepared."""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Generator, Tensor, nn

from edgedl.training.augment import Augmentation, resize
from edgedl.training.batches import BatchSource, derived_seed
from edgedl.training.optimisers import build_optimiser
from edgedl.training.options import TrainOptions
from edgedl.training.penalties import l1_penalty, weight_decay_from_lambda, weights
from edgedl.training.schedules import Schedule
from exporters.denormals import set_flush_denormals
from runtime.errors import CheckFailedError, InputError

Batch = dict[str, Tensor]
Sums = list[dict[str, tuple[float, float]]]
"""Of each validation set: by measure, the sum over batches and what to divide it by."""

LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")


def ignore_what_users_cannot_mend() -> None:
    """Lightning 2.6 asks torch 2.13 in a way that torch has renamed, and each training would warn of it.

    It also warns of modules in evaluation mode. `fit` calls ``train()`` itself; what stays behind is frozen on purpose.
    """
    warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode at the start of training")
    warnings.filterwarnings("ignore", message=r"Grad strides do not match bucket view strides")  # of 1×1 kernels


class Learning(Protocol):
    """What a task defines: its loss, its validation measures, and which of them chooses the best epoch."""

    @property
    def monitor(self) -> str:
        """Name of the measure that chooses."""
        ...

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether small or large is good."""
        ...

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss of a training batch, a scalar."""
        ...

    def measure(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, tuple[Tensor, int]]:
        """Sums over a validation batch and what to divide them by once all batches are in."""
        ...


class Preparation(Protocol):
    """Turns the rows that were drawn into what the network takes, on the device that it trains on."""

    def __call__(self, batch: Batch, augmentation: Augmentation | None, generator: Generator | None) -> Batch:
        """Prepares a batch; validation gives neither an augmentation nor a generator."""
        ...


class PrepareImages:
    """Brings ``batch["image"]``, uint8 (N, H, W, 3), to float levels (N, 3, size, size), augmented while training."""

    def __init__(self, size: int, column: str = "image") -> None:
        self.size = size
        self.column = column

    def __call__(self, batch: Batch, augmentation: Augmentation | None, generator: Generator | None) -> Batch:
        """Replaces the images of a batch."""
        images = batch[self.column].permute(0, 3, 1, 2)  # (N, 3, H, W)
        if augmentation is None or generator is None:
            return {**batch, self.column: resize(images, self.size)}
        return {**batch, self.column: augmentation(images, self.size, generator)}


def as_drawn(batch: Batch, augmentation: Augmentation | None, generator: Generator | None) -> Batch:
    """The preparation of tasks that need none."""
    return batch


class TaskModule(pl.LightningModule):
    """Trains ``network`` as ``learning`` says; ``fit`` configures it and runs it.

    All randomness of an epoch derives from (seed, epoch, rank), so that nothing but the weights and the optimiser has
    to be saved for a resumed run to be the same bit for bit.

    Args:
        network: What is trained; only its weights end up in ``best.ckpt``.
        learning: Loss and measures.
        prepare: Turns drawn rows into the network's inputs.
        head: Prefixes of the parameters that learn at ``head_lr``.
        rests: Some parameters have no gradient in some steps.
    """

    def __init__(
        self,
        network: nn.Module,
        learning: Learning,
        *,
        prepare: Preparation = as_drawn,
        head: Sequence[str] = (),
        rests: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning = learning
        self.prepare = prepare
        self.head = tuple(head)
        self.rests = rests
        self.options = TrainOptions()
        self.train_source: BatchSource | None = None
        self.validation_sources: dict[str, BatchSource] = {}
        self.validation_results: dict[str, float] = {}
        self._generator: Generator | None = None
        self._loss_sum = torch.zeros(())
        self._steps = 0
        self._sums: list[dict[str, list[Tensor]]] = []
        self._penalised: list[Tensor] = []
        self._decay = 0.0
        self._log_level = logging.WARNING
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer validation samples than processes

    def configure(
        self, options: TrainOptions, train: BatchSource, validation: Mapping[str, BatchSource], samples: int | None
    ) -> None:
        """Hands over the data and options; ``samples`` is T of the L2 penalty, None where it is not known."""
        if options.l2 and samples is None:
            raise InputError("l2 is divided by the number of training samples, which endless data does not have")
        self.options = options
        self._log_level = logging.getLogger(__name__).getEffectiveLevel()
        self.train_source = train
        self.validation_sources = dict(validation)
        self._decay = weight_decay_from_lambda(options.l2, samples) if options.l2 and samples else options.weight_decay

    # Lightning calls these; on each process, because several processes may have been started since `configure`.

    def setup(self, stage: str) -> None:
        """Gives a process that was started for this training the surroundings of the one that started it."""
        if multiprocessing.parent_process() is None:
            return
        logging.basicConfig(level=self._log_level, format="%(message)s")
        for name in LIGHTNING_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        ignore_what_users_cannot_mend()
        set_flush_denormals(True)
        if self.options.threads is not None:
            torch.set_num_threads(self.options.threads)

    def train_dataloader(self) -> BatchSource:
        """The training batches."""
        if self.train_source is None:
            raise InputError("a TaskModule is trained with edgedl.training.fit.fit")
        return self.train_source

    def val_dataloader(self) -> list[BatchSource]:
        """The validation batches, one source per validation set."""
        return list(self.validation_sources.values())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and its schedule, stepped after every step."""
        options = self.options
        per_epoch = len(self.train_dataloader())
        optimiser = build_optimiser(
            self.network,
            options.optimiser,
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov,
            betas=options.betas,
            weight_decay=self._decay,
            head=self.head,
            head_lr=options.head_lr,
        )
        total = options.epochs * per_epoch
        schedule = Schedule(
            options.schedule,
            total,
            warmup=round(options.warmup * per_epoch),
            settle=options.settle * per_epoch,
            settle_start=options.settle_lr,
        )
        # A plain function, because LambdaLR would save the attributes of anything else, and there are none to save.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_start(self) -> None:
        """Lets a launcher end this process at once when another one has died.

        Lightning's answer to SIGTERM is a collective operation, which waits for the dead. Whatever a sudden end leaves
        on disk is whole.
        """
        if self.trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_epoch_start(self) -> None:
        """Starts every random number of the epoch afresh."""
        epoch, rank, seed = self.current_epoch, self.global_rank, self.options.seed
        source = self.train_dataloader()
        source.set_epoch(epoch)
        torch.manual_seed(derived_seed(seed, epoch, rank, 1))  # dropout
        self._generator = Generator(self.device).manual_seed(derived_seed(seed, epoch, rank, 2))  # augmentation
        self._loss_sum = torch.zeros((), device=self.device)
        self._steps = 0
        self._penalised = weights(self.network) if self.options.l1 else []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, penalties that the optimiser does not add included."""
        torch.set_flush_denormal(True)  # a callback may have opened a session of ONNX Runtime, see `fit`
        options = self.options
        settling = self.current_epoch >= options.epochs - options.settle
        augmentation = options.settle_augmentation if settling else options.augmentation
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):  # pixels stay float32
            batch = self.prepare(batch, augmentation, self._generator)
        loss = self.learning.loss(self.network, batch)
        self._loss_sum += loss.detach()
        self._steps += 1
        return loss + l1_penalty(self._penalised, options.l1) if options.l1 else loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips the gradient's norm; Lightning's own clipping refuses fused optimisers under bfloat16."""
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)

    def mean_loss(self) -> float:
        """The training loss averaged over the epoch and all processes.

        Raises:
            CheckFailedError: It is not a number any more.
        """
        both = torch.stack([self._loss_sum.double(), torch.tensor(self._steps, device=self.device).double()])
        total, steps = _sum_over_processes(both).tolist()
        mean = float(total / max(steps, 1))
        if not math.isfinite(mean):
            raise CheckFailedError(
                f"the training loss became {mean} in epoch {self.current_epoch + 1}; "
                f"lower the learning rate ({self.options.lr}) or clip the gradient"
            )
        return mean

    def on_validation_epoch_start(self) -> None:
        """Empties the sums, and gives every process the batch statistics of the first."""
        self._sums = [{} for _ in self.validation_sources]
        if torch.distributed.is_initialized():
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the sums of its validation set, in float32 as the network will be deployed."""
        torch.set_flush_denormal(True)
        with torch.autocast(self.device.type, enabled=False):
            measured = self.learning.measure(self.network, self.prepare(batch, None, None))
        for name, (total, count) in measured.items():
            sums = self._sums[dataloader_idx].setdefault(name, [])
            sums.append(torch.stack([total.double(), torch.tensor(float(count), device=total.device).double()]))

    def on_validation_epoch_end(self) -> None:
        """Turns sums into means; with several sets, each by its name and their plain mean under the measure's."""
        own = [{name: _total(parts) for name, parts in sums.items()} for sums in self._sums]
        means = [mean_over_processes(sums) for sums in zip(*_of_all_processes(own), strict=True)]
        results = {name: sum(mean[name] for mean in means) / len(means) for name in means[0]}
        if len(means) > 1:
            for label, mean in zip(self.validation_sources, means, strict=True):
                results |= {f"{label}/{name}": value for name, value in mean.items()}
        if self.learning.monitor not in results:
            raise InputError(
                f"the measure {self.learning.monitor!r} is to choose the best epoch; found {', '.join(results)}"
            )
        self.validation_results = results
        # For Lightning's early stopping. The value is already the same on every process.
        self.log("monitor", results[self.learning.monitor], sync_dist=torch.distributed.is_initialized())


def _total(pairs: list[Tensor]) -> tuple[float, float]:
    """The sums of pairs (2,)."""
    first, second = torch.stack(pairs).sum(dim=0).tolist()
    return first, second


def mean_over_processes(sums: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """The mean of each measure from the sum and the count of each process; one without a batch has none."""
    names = list(dict.fromkeys(name for own in sums for name in own))
    pairs = {name: [own[name] for own in sums if name in own] for name in names}
    return {name: sum(total for total, _ in own) / sum(count for _, count in own) for name, own in pairs.items()}


def _of_all_processes(own: Sums) -> list[Sums]:
    """What each process has, in their order."""
    if not torch.distributed.is_initialized():
        return [own]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, own)
    return found


def _sum_over_processes(values: Tensor) -> Tensor:
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
    return values
