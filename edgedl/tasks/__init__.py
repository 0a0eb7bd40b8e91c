"""The tasks: each binds its data, network, objective, metrics and deployment together."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from runtime.bundle import Bundle
from runtime.errors import InputError

# Task -> module; each has a `TASK`. Named here, imported when asked for.
_TASKS = {
    "age": "edgedl.tasks.age",
    "caption": "edgedl.tasks.caption",
    "timer": "edgedl.tasks.timer",
    "chars": "edgedl.tasks.chars",
    "digits": "edgedl.tasks.digits",
    "sgd": "edgedl.tasks.sgd",
    "longlag": "edgedl.tasks.longlag",
    "gradients": "edgedl.tasks.gradients",
}

_FLAGS = {"others": "--with"}
"""Options whose flag is not their name."""

AnyPath = str | PathLike[str]


class Task(Protocol):
    """What the command line asks of a task. Heavy imports belong inside the methods."""

    name: str

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares the options of `edgedl train NAME`."""

    def train(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains into the run's folder and gives the figures to print."""

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes a trained run through the gate into a bundle."""

    def pull(self, path: AnyPath, **options: Any) -> Bundle:
        """Makes a bundle of public weights."""

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on data, by default on a held-out part of the embedded ones: {"n", "metrics", …}."""

    def plot(self, path: AnyPath, output: AnyPath | None, **options: Any) -> list[Path]:
        """Draws what there is to see of a run, or of one input to a run or bundle; gives the pictures' paths."""


def task_names() -> tuple[str, ...]:
    """All tasks, in the order of the deck."""
    return tuple(_TASKS)


def task(name: str) -> Task:
    """The task of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _TASKS:
        raise InputError(f"unknown task {name!r}; there is {', '.join(_TASKS)}")
    found: Task = import_module(_TASKS[name]).TASK
    return found


def refuse_options(options: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    """Refuses options that are another task's.

    Args:
        options: by name, as they were given.
        known: those that are taken.
        what: is done with them, e.g. "a timer run is exported".

    Raises:
        InputError: one is not known.
    """
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InputError(f"{what} with {_flags(known)}, not with {_flags(unknown)}")


def _flags(names: Sequence[str]) -> str:
    *most, last = (_FLAGS.get(name, f"--{name}") for name in names)
    return f"{', '.join(most)} and {last}" if most else last
