"""The configuration of a run: one typed form for ``config.json``, for range checks and for resuming."""

from __future__ import annotations

import types
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from runtime.errors import InputError


@dataclass(frozen=True, slots=True)
class Range:
    """The values that an option takes; None sets no bound."""

    least: float | None = None
    above: float | None = None
    below: float | None = None

    def check(self, flag: str, value: float) -> None:
        """Compares a value with the range.

        Raises:
            InputError: the value lies outside.
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
    *, least: float | None = None, above: float | None = None, below: float | None = None, default: Any = MISSING
) -> Any:
    """A field that an option of ``edgedl train`` of the same name sets; a range holds for each of several values."""
    return field(default=default, metadata={"option": Range(least, above, below)})


def flag(name: str) -> str:
    """The flag of an option, e.g. ``--self-weight``."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What every run was begun with. A task adds fields of its own, those of its options with `option`.

    Attributes:
        task: The task's name.
        not_kept: Options of the task that are not kept, because they do not change what is learnt.
        data: What the network learns from: ``name``, ``n`` samples, ``skipped`` ones by reason, ``notes``.
        seed: Of order, augmentation, dropout and initial weights.
        lr: Peak learning rate.
        epochs: Passes over the training data.
        optimiser: How steps are taken.
        license: SPDX identifier of the weights.
        weights: The public weights that the network began with.
    """

    task: ClassVar[str]
    not_kept: ClassVar[tuple[str, ...]] = ()

    data: Mapping[str, Any]
    seed: int
    lr: float
    epochs: int
    optimiser: str
    license: str = "Apache-2.0"
    weights: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Checks the ranges of the options."""
        for one in fields(self):
            _check_range(one, getattr(self, one.name))

    @classmethod
    def of(cls, run: Run) -> Self:
        """The configuration of a run of this task.

        Raises:
            InputError: the run belongs to another task, or its configuration lacks a key or holds another type.
        """
        if run.task != cls.task:
            raise InputError(f"{run.path} is a run of {run.task}, not of {cls.task}")
        return cls.from_json(run.config, str(run.path / "config.json"))

    @classmethod
    def from_json(cls, config: Mapping[str, Any], where: str = "config.json") -> Self:
        """Reads the form that `to_json` writes. Keys that are not known are left aside.

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
            value = config[one.name]
            if not _fits(value, hints[one.name]):
                raise InputError(f"{where}: {one.name} is {value!r:.60}, which this version of edgedl does not know")
            taken[one.name] = tuple(value) if isinstance(value, list) else value
        return cls(**taken)

    def to_json(self) -> dict[str, Any]:
        """The entries of ``config.json``, the task first; what is None is left out."""
        return {"task": self.task} | {key: value for key, value in asdict(self).items() if value is not None}

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with.

        Raises:
            InputError: an option was given with another value.
        """
        begun = {one.name: getattr(self, one.name) for one in fields(self) if "option" in one.metadata}
        check_resumed(begun, args, run_path)


def check_resumed(begun: Mapping[str, Any], args: Namespace, run_path: Path) -> None:
    """Refuses options with other values than those that a run was begun with.

    Raises:
        InputError: an option was given with another value.
    """
    for key, value in begun.items():
        asked = getattr(args, key, None)
        if asked is not None and (tuple(asked) if isinstance(asked, list) else asked) != value:
            name = flag(key)
            told = f"without {name}" if value is None or value is False else f"with {name} {_text(value)}"
            raise InputError(f"{run_path} was begun {told}; resume it without {name}")


def trained_with(options: TrainOptions) -> dict[str, Any]:
    """The fields of a configuration that the training options give."""
    return {"seed": options.seed, "lr": options.lr, "epochs": options.epochs, "optimiser": options.optimiser}


def given(args: Namespace, config: type[RunConfig]) -> dict[str, Any]:
    """The options of a task that were given on the command line, by the names of the configuration's fields.

    Raises:
        InputError: one is out of range.
    """
    found: dict[str, Any] = {}
    for one in fields(config):
        value = getattr(args, one.name, None) if "option" in one.metadata else None
        if value is not None:
            found[one.name] = tuple(value) if isinstance(value, list) else value
            _check_range(one, found[one.name])
    return found


def _check_range(one: Field[Any], value: Any) -> None:
    """Checks each number of a field that an option sets."""
    if "option" in one.metadata:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float):
                one.metadata["option"].check(flag(one.name), number)


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
    return isinstance(value, origin or hint)


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
