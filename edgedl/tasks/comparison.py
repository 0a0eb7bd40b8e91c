"""Runs that compare several trainings: the configuration of the whole, and that of each training in it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from edgedl.tasks.run_config import RunConfig, check_resumed
from edgedl.training.run import Run
from runtime.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(RunConfig):
    """The configuration of one training among several that are compared.

    Attributes:
        each: What the trainings differ in: the field and the option of this name. With an s it is the entry of
            ``config.json`` that holds all of them, and the folder of their runs.
        shared: Fields that are the same for all of them.
    """

    each: ClassVar[str]
    shared: ClassVar[tuple[str, ...]]

    @classmethod
    def compared(cls, run: Run) -> bool:
        """Whether a run of this task is that of a comparison, and not that of one training in it."""
        return f"{cls.each}s" in run.config

    @classmethod
    def folder(cls, run_path: Path, name: str) -> Path:
        """The folder of one training's own run."""
        return run_path / f"{cls.each}s" / name


C = TypeVar("C", bound=TrainingConfig)


@dataclass(frozen=True, slots=True)
class Comparison(Generic[C]):
    """The configuration of a run that compares several trainings.

    Attributes:
        trainings: The configuration of each training by its name, at least one.
    """

    trainings: Mapping[str, C]

    @property
    def first(self) -> C:
        """One of the trainings, to read what they share."""
        return next(iter(self.trainings.values()))

    @classmethod
    def of(cls, run: Run, config: type[C], *, single: bool = False) -> Self:
        """The configuration of a run of this task.

        Args:
            run: of the comparison.
            config: of each training.
            single: take the run of one training, too, as a comparison of it alone.

        Raises:
            InputError: the run belongs to another task, is that of one training, or its configuration does not fit.
        """
        if run.task == config.task and config.compared(run):
            every = f"{config.each}s"
            found, where = run.config[every], f"{run.path / 'config.json'}, {every}"
            if not isinstance(found, dict) or not found or not all(isinstance(one, dict) for one in found.values()):
                raise InputError(f"{where}: expected an object for each {config.each}, found {found!r:.60}")
            return cls({name: config.from_json(one, f"{where}, {name}") for name, one in found.items()})
        alone = config.of(run)
        if not single:
            raise InputError(f"{run.path} is one {config.each} of a comparison; name the run that it lies in")
        return cls({getattr(alone, config.each): alone})

    def to_json(self) -> dict[str, Any]:
        """The entries of ``config.json``: what all trainings share, and the configuration of each."""
        entries = {name: config.to_json() for name, config in self.trainings.items()}
        first = entries[next(iter(entries))]
        return {key: first[key] for key in ("task", *self.first.shared)} | {f"{self.first.each}s": entries}

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with.

        Raises:
            InputError: an option was given with another value.
        """
        begun: dict[str, Any] = {}
        for one in fields(self.first):
            if "option" in one.metadata:
                values = tuple(getattr(config, one.name) for config in self.trainings.values())
                same = one.name != self.first.each and len(set(values)) == 1
                begun[one.name] = values[0] if same else values
        check_resumed(begun, args, run_path)
