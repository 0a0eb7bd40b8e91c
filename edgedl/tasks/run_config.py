"""The configuration of a run: one typed form for ``config.json``, for range checks and for resuming."""

from __future__ import annotations

import types
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, Union, get_args, get_origin, get_type_hints

from edgedl.training.run import Run
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.training.options import TrainOptions


_LEARNT_WITH = (
    "batch_size", "head_lr", "momentum", "nesterov", "weight_decay", "l2", "l1", "schedule", "warmup", "settle",
    "settle_lr", "ema", "keep", "patience", "clip", "bf16",
)  # fmt: skip
"""Training options beside the seed, the rate, the epochs and the optimiser that change what is learnt."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values that an option takes; None sets no bound."""

    least: float | None = None
    below: float | None = None
    above: float | None = None

    def check(self, flag: str, value: float) -> None:
        """Compares a value with the range.

        Raises:
            InputError: the value lies outside, or is no number.
        """
        if (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        ):
            return
        if self.below is not None:
            raise InputError(f"{flag} is from {self.least or 0:g} to below {self.below:g}, not {value}")
        wanted = f"at least {self.least:g}" if self.above is None else f"above {self.above:g}"
        raise InputError(f"{flag} must be {wanted}, not {value}")


def option(
    *,
    least: float | None = None,
    below: float | None = None,
    above: float | None = None,
    default: Any = MISSING,
    named: str | None = None,
) -> Any:
    """A field that an option of ``edgedl train`` sets: the one of the same name, or the one that is named.

    A range holds for each of several values.
    """
    return field(default=default, metadata={"option": Range(least, below, above), "named": named})


def flag(name: str) -> str:
    """The flag of an option, e.g. ``--self-weight``."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings that belong together; those that an option sets are fields made by `option`. They may be nested."""

    def __post_init__(self) -> None:
        """Checks the ranges of the options."""
        for name, one in _options(type(self)).items():
            _check_range(name, one, getattr(self, one.name))

    @classmethod
    def from_json(cls, config: Mapping[str, Any], where: str = "config.json") -> Self:
        """Reads what ``config.json`` holds of these settings. Keys that are not known are left aside.

        Raises:
            InputError: a key is missing, or its value has another type.
        """
        hints = get_type_hints(cls)
        taken: dict[str, Any] = {}
        for one in fields(cls):
            if one.name not in config:
                if one.default is MISSING and one.default_factory is MISSING:
                    raise InputError(f"{where} has no {one.name!r}; it was written by another version of edgedl")
                continue
            value, hint = config[one.name], hints[one.name]
            if not _fits(value, hint):
                raise InputError(f"{where}: {one.name} is {value!r:.60}, which this version of edgedl does not know")
            if isinstance(hint, type) and issubclass(hint, Settings):
                value = hint.from_json(value, f"{where}: {one.name}")
            taken[one.name] = tuple(value) if isinstance(value, list) else value
        return cls(**taken)

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with.

        Raises:
            InputError: an option was given with another value.
        """
        begun = {name: getattr(self, one.name) for name, one in _options(type(self)).items()}
        check_resumed(begun, args, run_path)
        for one in fields(self):
            nested = getattr(self, one.name)
            if isinstance(nested, Settings):
                nested.check_resumed(args, run_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(Settings):
    """What every run was begun with. A task adds fields of its own, those of its options with `option`.

    Attributes:
        task: The task's name.
        not_kept: Options of the task without a field: they do not change what is learnt, or another field says it.
        data: What the network learns from: ``name``, ``n`` samples, ``skipped`` ones by reason, ``notes``.
        seed: Of order, augmentation, dropout and initial weights.
        lr: Peak learning rate.
        epochs: Passes over the training data.
        optimiser: How steps are taken.
        license: SPDX identifier of the weights.
        weights: Names of the public weights that the network began with.
        training: The other options of the training, see `trained_with`; versions before it left them out.
    """

    task: ClassVar[str]
    not_kept: ClassVar[tuple[str, ...]] = ()

    data: Mapping[str, Any]
    seed: int
    lr: float
    epochs: int
    optimiser: str
    license: str = "Apache-2.0"
    weights: tuple[str, ...] = ()
    training: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, run: Run) -> Self:
        """The configuration of a run of this task.

        Raises:
            InputError: the run belongs to another task, or its configuration lacks a key or holds another type.
        """
        if run.task != cls.task:
            raise InputError(f"{run.path} is a run of {run.task}, not of {cls.task}")
        return cls.from_json(run.config, str(run.path / "config.json"))

    def to_json(self) -> dict[str, Any]:
        """The entries of ``config.json``, the task first; what is None is left out."""
        return {"task": self.task} | {key: value for key, value in asdict(self).items() if value is not None}

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with, the seed among them.

        Raises:
            InputError: an option was given with another value.
        """
        Settings.check_resumed(self, args, run_path)
        if getattr(args, "seed", None) not in (None, self.seed):
            raise resumed_otherwise(run_path, "seed", self.seed)

    def begun_with(self, recipe: TrainOptions) -> TrainOptions:
        """The recipe with the options that this run was begun with, so that `--resume` alone goes on as it began.

        ``devices`` is the number of its processes, wherever they ran: `train_options` needs it for the batch size.
        """
        training = self.training or {}
        begun: dict[str, Any] = {"keep": "best"}  # runs from before 2026-11-30 say nothing of it
        begun |= {name: value for name, value in training.items() if name in _LEARNT_WITH}
        begun |= {name: getattr(self, name) for name in ("seed", "lr", "epochs", "optimiser")}
        begun["devices"] = training.get("processes", 1)
        if training.get("augment") is False:
            begun |= {"augmentation": None, "settle_augmentation": None}
        return replace(recipe, **begun)

    def check_data(self, dataset: DataSet, what: str, run_path: Path) -> None:
        """Compares the data with those that the run was begun on.

        Args:
            dataset: The data.
            what: They consist of, e.g. "faces".
            run_path: The run.

        Raises:
            InputError: the data have another name or size.
        """
        name, count = self.data["name"], self.data["n"]
        if (name, count) != (dataset.name, len(dataset)):
            raise InputError(
                f"{run_path} was begun on {count} {what} of {name}, not on {len(dataset)} of {dataset.name}; resume it "
                "with the data that it was begun with"
            )


class DataSet(Protocol):
    """What a configuration says of data."""

    @property
    def name(self) -> str:
        """The data set."""
        ...

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many files were left out, by reason."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What to know of the data, a sentence each."""
        ...

    def __len__(self) -> int:
        """How many samples there are."""
        ...


def described(dataset: DataSet) -> dict[str, Any]:
    """The entry ``data`` of a configuration."""
    return {
        "name": dataset.name,
        "n": len(dataset),
        "skipped": dict(dataset.skipped),
        "notes": list(dataset.notes),
    }


def check_resumed(begun: Mapping[str, Any], args: Namespace, run_path: Path) -> None:
    """Refuses options with other values than those that a run was begun with.

    Raises:
        InputError: an option was given with another value.
    """
    for name, value in begun.items():
        if _given(args, name) not in (None, value):
            raise resumed_otherwise(run_path, name, value)


def resumed_otherwise(run_path: Path, name: str, begun: Any) -> InputError:
    """The error for an option whose value is not the one that a run was begun with."""
    told = f"without {flag(name)}" if begun is None or begun is False else f"with {flag(name)} {_text(begun)}"
    return InputError(f"{run_path} was begun {told}; resume it without {flag(name)}")


def trained_with(options: TrainOptions) -> dict[str, Any]:
    """The fields of a configuration that the training options give: those that change what is learnt."""
    training = {name: getattr(options, name) for name in _LEARNT_WITH}
    return {
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
        "training": training | {"augment": options.augmentation is not None, "processes": options.processes},
    }


def given(args: Namespace, settings: type[Settings]) -> dict[str, Any]:
    """What was given on the command line, by the names of the settings' own fields.

    Raises:
        InputError: a value is out of range.
    """
    found: dict[str, Any] = {}
    for name, one in _options(settings).items():
        value = _given(args, name)
        if value is not None:
            _check_range(name, one, value)
            found[one.name] = value
    return found


def _check_range(name: str, one: Field[Any], value: Any) -> None:
    """Checks each number of a field that an option sets."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float):
            one.metadata["option"].check(flag(name), number)


def _options(settings: type[Settings]) -> dict[str, Field[Any]]:
    """The fields that options set, by the names of the options."""
    return {one.metadata["named"] or one.name: one for one in fields(settings) if "option" in one.metadata}


def _given(args: Namespace, name: str) -> Any:
    value = getattr(args, name, None)
    return tuple(value) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has the type of a field."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return type(value) is int
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, get_args(hint)[0]) for one in value)
    if hint is Any:
        return True
    if isinstance(hint, type) and issubclass(hint, Settings):
        return isinstance(value, Mapping)
    return isinstance(value, origin or hint)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
