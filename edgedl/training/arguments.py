"""The training options on the command line: the same for every task, with the task's recipe as defaults."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import replace
from typing import Any, get_args

from edgedl.training.optimisers import OptimiserName
from edgedl.training.options import TrainOptions
from edgedl.training.schedules import ScheduleName

# Name, type, help. A default is shown by the task, because it depends on the data.
_NUMBERS: tuple[tuple[str, type, str], ...] = (
    ("epochs", int, "passes over the training data"),
    ("batch_size", int, "samples per step and process"),
    ("lr", float, "peak learning rate"),
    ("head_lr", float, "learning rate of the head as a multiple of --lr"),
    ("momentum", float, "SGD's momentum"),
    ("weight_decay", float, "decay of weights, not of biases and norms"),
    ("l2", float, "λ of λ/(2T)·ΣW², T training samples; SGD only"),
    ("l1", float, "factor of Σ|W|"),
    ("warmup", float, "epochs of linear warm-up"),
    ("settle", int, "last epochs with gentler augmentation and a learning rate of their own"),
    ("settle_lr", float, "the learning rate that these start on, as a multiple of --lr"),
    ("ema", float, "decay of the moving average of the weights; 0: off"),
    ("patience", int, "stop after so many epochs without a better validation"),
    ("clip", float, "largest norm of the gradient"),
    ("max_minutes", float, "time limit; no epoch is begun that would not end in time"),
    ("threads", int, "threads of each process"),
    ("devices", int, "processes (CPU) or GPUs on this machine"),
    ("num_nodes", int, "machines"),
    ("seed", int, "of order, augmentation, dropout and initial weights"),
)


def add_training_arguments(parser: ArgumentParser) -> None:
    """Declares the options of `TrainOptions`; what is not given stays as the task's recipe has it."""
    group = parser.add_argument_group("training", "what is not given is as the task's recipe has it")
    for name, kind, text in _NUMBERS:
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N" if kind is int else "X", help=text)
    group.add_argument("--optimiser", choices=get_args(OptimiserName), help="how steps are taken")
    group.add_argument("--schedule", choices=get_args(ScheduleName), help="of the learning rate")
    group.add_argument("--strategy", help="Lightning's strategy for several processes or machines, e.g. ddp")
    group.add_argument("--device", choices=("auto", "cpu", "gpu"), help="where to train")
    group.add_argument("--nesterov", action=BooleanOptionalAction, default=None, help="SGD looks ahead")
    group.add_argument("--bf16", action=BooleanOptionalAction, default=None, help="bfloat16 mixed precision")
    group.add_argument("--augment", action=BooleanOptionalAction, default=None, help="vary the training pictures")
    group.add_argument("--resume", action="store_true", default=None, help="continue the run's last checkpoint")


def train_options(args: Namespace, recipe: TrainOptions) -> TrainOptions:
    """The recipe with what was given on the command line.

    Raises:
        InputError: options that do not go together.
    """
    names = [name for name, _, _ in _NUMBERS]
    names += ["optimiser", "schedule", "strategy", "device", "nesterov", "bf16", "resume"]
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if args.augment is False:
        given |= {"augmentation": None, "settle_augmentation": None}
    if "epochs" in given and "settle" not in given:
        given["settle"] = share_of_epochs(recipe.settle, recipe, given["epochs"])
    if "l2" in given:
        given.setdefault("weight_decay", 0.0)
    return replace(recipe, **given)


def share_of_epochs(count: int, recipe: TrainOptions, epochs: int) -> int:
    """As large a part of `epochs` as `count` is of the recipe's: what comes last in a training of another length."""
    return max(epochs, 0) * count // recipe.epochs
