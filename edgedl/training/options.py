"""The options of a training, checked once, and the names that they take. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedl.training.schedules import ScheduleName
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.training.augment import Augmentation

OptimiserName = Literal["sgd", "adam", "adamw"]
Kept = Literal["best", "last"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How to train, apart from what: the network, its objective and the data.

    Attributes:
        epochs: Passes over the training samples.
        batch_size: Samples per step and process.
        optimiser: ``sgd``, ``adam`` or ``adamw``.
        lr: Peak learning rate.
        head_lr: Learning rate of the head as a multiple of ``lr``.
        momentum: SGD's momentum.
        nesterov: SGD looks ahead along its momentum.
        betas: Adam's and AdamW's two decay rates.
        weight_decay: Decay of weights (not of biases and norms) in the optimiser's own sense.
        l2: λ of λ/(2T)·ΣW² with T training samples; SGD only, where it is the same as ``weight_decay`` λ/T.
        l1: Factor of Σ|W|.
        schedule: ``constant``, ``step``, ``cosine`` or ``one-cycle``, per step.
        warmup: Epochs of linear warm-up before the schedule; fractions count.
        ema: Decay of the exponential moving average of the weights that is validated and kept; 0 turns it off.
        keep: Which epoch's weights are kept: the one with the ``best`` validation metric, or the ``last``, so that the
            validation samples choose nothing.
        patience: Epochs without a better validation metric before training stops; None never stops.
        clip: Largest norm of the gradient; None does not clip.
        augmentation: None trains on the samples as they are.
        settle: How many of the last epochs see gentler augmentation, after the schedule has ended, on a learning rate
            that falls from a part of ``lr`` to 0: strong augmentation regularises, but its samples are not those of
            life (He et al. 2019, "Data augmentation revisited"). 0 turns it off.
        settle_augmentation: What they see.
        settle_lr: The learning rate that they start on, as a multiple of ``lr``.
        max_minutes: Time limit. No epoch is begun that would not end in time; one under way is cut short.
        threads: Threads of each process; None leaves torch's choice.
        device: ``cpu``, ``gpu`` or ``auto``, which takes a GPU where there is one.
        devices: Processes (CPU) or GPUs on this machine.
        num_nodes: Machines.
        strategy: Lightning's strategy. ``auto`` with several devices starts them from this process; with several
            machines, or under a launcher, it is Lightning's ``ddp``.
        seed: Of order, augmentation and dropout. (The network's initial weights are the caller's.)
        resume: Continue from the run's last checkpoint; from the beginning if it has none yet.
        bf16: bfloat16 mixed precision; in a recipe None stands for on where the processor multiplies it natively. On a
            CPU with AVX-512 BF16 it trained a ResNet-10 1.4 to 1.7 times as fast.
        channels_last: Memory format; only worth it together with ``bf16`` on a CPU.
        progress: Show a progress line where standard error is a terminal.
    """

    epochs: int = 20
    batch_size: int = 64
    optimiser: OptimiserName = "sgd"
    lr: float = 0.01
    head_lr: float = 1.0
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    l2: float = 0.0
    l1: float = 0.0
    schedule: ScheduleName = "cosine"
    warmup: float = 0.0
    ema: float = 0.998
    keep: Kept = "best"
    patience: int | None = None
    clip: float | None = None
    augmentation: Augmentation | None = None
    settle: int = 0
    settle_augmentation: Augmentation | None = None
    settle_lr: float = 0.2
    max_minutes: float | None = None
    threads: int | None = None
    device: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    seed: int = 0
    resume: bool = False
    bf16: bool | None = False
    channels_last: bool = False
    progress: bool = True

    @property
    def processes(self) -> int:
        """How many train together, on all machines."""
        return self.devices * self.num_nodes

    @property
    def samples_a_step(self) -> int:
        """Of all processes together."""
        return self.batch_size * self.processes

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "head_lr", "settle_lr"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("weight_decay", "l2", "l1", "warmup"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("patience", "clip", "max_minutes", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, not {value}")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is a decay from 0 (off) to below 1, not {self.ema}")
        if self.settle < 0:
            raise InputError(f"settle counts epochs and must not be negative, found {self.settle}")
        if self.warmup + self.settle > self.epochs:
            settling = f" and {self.settle} to settle are" if self.settle else " is"
            raise InputError(f"a warm-up of {self.warmup} epochs{settling} longer than the training of {self.epochs}")
        if self.l2 and self.weight_decay:
            raise InputError("l2 and weight_decay are two names for one thing; give one of them")
        if self.l2 and self.optimiser != "sgd":
            raise InputError(
                f"λ/(2T)·ΣW² is a weight decay of λ/T for SGD only; with {self.optimiser} use weight_decay, not l2"
            )
        if self.seed < 0:
            raise InputError(f"the seed must not be negative, found {self.seed}")
