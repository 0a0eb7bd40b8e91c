"""The training options on the command line: the same for every task, with the task's recipe as defaults."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from edgedl.training.options import Kept, OptimiserName, TrainOptions
from edgedl.training.processes import as_launched
from edgedl.training.schedules import ScheduleName
from runtime.errors import InputError

# Name, type, help.
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


# What a default of None stands for.
_NONE = {
    "patience": "never",
    "clip": "no limit",
    "max_minutes": "no limit",
    "threads": "as many as torch chooses",
    "bf16": "on where the processor has it",
}


def add_training_arguments(
    parser: ArgumentParser, recipes: Mapping[str, TrainOptions] | None = None, *, augmented: bool = False
) -> None:
    """Declares the options of `TrainOptions`; what is not given stays as the task's recipe has it.

    Args:
        parser: of `edgedl train TASK`.
        recipes: the task's recipes, whose values the help shows as defaults; without them it shows none. The first is
            that of a training without options, the others are named after the choice that leads to them.
        augmented: whether the task's pictures are augmented.
    """
    group = parser.add_argument_group("training", "what is not given is as the task's recipe has it")

    def told(text: str, name: str) -> str:
        values = {key: getattr(recipe, name) for key, recipe in (recipes or {}).items()}
        return f"{text} {default(values, _NONE.get(name, 'none'))}" if values else text

    for name, kind, text in _NUMBERS:
        metavar = "N" if kind is int else "X"
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=told(text, name))
    optimisers, schedules = get_args(OptimiserName), get_args(ScheduleName)
    group.add_argument("--optimiser", choices=optimisers, help=told("how steps are taken", "optimiser"))
    group.add_argument("--schedule", choices=schedules, help=told("of the learning rate", "schedule"))
    group.add_argument("--keep", choices=get_args(Kept), help=told("which epoch's weights are kept", "keep"))
    group.add_argument(
        "--strategy", help=told("Lightning's strategy for several processes or machines, e.g. ddp", "strategy")
    )
    group.add_argument("--device", choices=("auto", "cpu", "gpu"), help=told("where to train", "device"))
    for name, text in (("nesterov", "SGD looks ahead"), ("bf16", "bfloat16 mixed precision")):
        group.add_argument(f"--{name}", action=BooleanOptionalAction, default=None, help=told(text, name))
    varied = f" {default({'': augmented})}" if recipes else ""
    group.add_argument(
        "--augment", action=BooleanOptionalAction, default=None, help=f"vary the training pictures{varied}"
    )
    group.add_argument("--resume", action="store_true", default=None, help="continue the run's last checkpoint")


def default(values: Mapping[str, Any], none: str = "none") -> str:
    """What a help text says of a default, e.g. ``(default: 70; lstm, gru: 30)``.

    Args:
        values: the default of each choice that it depends on; the first choice is the one that is made without options.
        none: what None is called.
    """
    choices: dict[Any, list[str]] = {}
    for name, value in values.items():
        choices.setdefault(value, []).append(name)
    first, *others = choices
    told = [_text(first, none), *(f"{', '.join(choices[value])}: {_text(value, none)}" for value in others)]
    return f"(default: {'; '.join(told)})"


def _text(value: Any, none: str) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return none if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def train_options(args: Namespace, recipe: TrainOptions) -> TrainOptions:
    """The recipe with what was given on the command line, on as many processes as a launcher started.

    A training that goes on with another number of processes keeps the samples of a step.

    Raises:
        InputError: options that do not go together.
    """
    names = [name for name, _, _ in _NUMBERS]
    names += ["optimiser", "schedule", "keep", "strategy", "device", "nesterov", "bf16", "resume"]
    given: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if args.augment is False:
        given |= {"augmentation": None, "settle_augmentation": None}
    if "epochs" in given and "settle" not in given:
        given["settle"] = share_of_epochs(recipe.settle, recipe, given["epochs"])
    if "l2" in given:
        given.setdefault("weight_decay", 0.0)
    options = as_launched(replace(recipe, **{"devices": 1, "num_nodes": 1, **given}))
    if options.resume and "batch_size" not in given:
        options = replace(options, batch_size=_shared_out(recipe.samples_a_step, options.processes))
    if options.bf16 is None:
        from edgedl.training.speed import bf16_is_fast

        options = replace(options, bf16=bf16_is_fast(options.device))
    return options


def _shared_out(samples: int, processes: int) -> int:
    """The batch size of each process.

    Raises:
        InputError: the samples of a step cannot be shared out evenly.
    """
    if samples % processes:
        raise InputError(
            f"the training was begun with {samples} samples a step, which {processes} processes cannot share out "
            "evenly; give --batch-size, for each process"
        )
    return samples // processes


def share_of_epochs(count: int, recipe: TrainOptions, epochs: int) -> int:
    """As large a part of `epochs` as `count` is of the recipe's: what comes last in a training of another length."""
    return max(epochs, 0) * count // recipe.epochs
