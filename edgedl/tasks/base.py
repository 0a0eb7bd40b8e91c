"""What every task is: the contract between the command line and a task's room, with what most tasks answer alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from runtime.bundle import Bundle
from runtime.errors import InputError

if TYPE_CHECKING:
    from exporters.quantize.judge import AnyJudge

AnyPath = str | PathLike[str]

_FLAGS = {"others": "--with", "spread": "--workers or --ray"}
"""Options whose flag is not their name."""


class Task(ABC):
    """One task: what can be trained, exported, evaluated and drawn. Heavy imports belong inside the methods.

    Attributes:
        name: What the command line calls it.
        judged_on: Where it reads no data to be judged on: one sentence that says what it is judged on.
        takes: How long its training takes, for the message of a task that has no public weights.
        resumes: Whether a training that was stopped goes on with ``--resume``.
    """

    name: ClassVar[str]
    judged_on: ClassVar[str] = ""
    takes: ClassVar[str] = "minutes"
    resumes: ClassVar[bool] = True

    @abstractmethod
    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares the options of `edgedl train NAME`."""

    @abstractmethod
    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains into the run's folder and gives the figures to print."""

    @abstractmethod
    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes a trained run through the gate into a bundle."""

    @abstractmethod
    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on data, by default on a held-out part of the embedded ones: {"n", "metrics", …}."""

    def refuse_data(self, data: AnyPath | None) -> None:
        """Refuses data of a task that is judged on its own.

        Raises:
            InputError: data was given.
        """
        if data is not None:
            raise InputError(f"{self.judged_on}; --data is not read")

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """What judges a variant of a bundle of this task: its metric, and three parts of data that share no sample.

        Args:
            data: As `evaluate` takes it.
            format: Of the data, where it cannot be told from its contents.
            most: Samples of the part that judges, at most; None leaves it to the task.

        Raises:
            InputError: the task has no metric for this, or does not take the data.
        """
        raise InputError(f"the task {self.name} has no metric by which a variant could be judged")

    def calibrate(self, bundle: AnyPath, data: AnyPath, split: str | None, **options: Any) -> Mapping[str, Any]:
        """Gives a bundle the interval that holds what it promises, see `edgedl.cli.calibrate`.

        Args:
            bundle: That is calibrated.
            data: As `evaluate` takes it.
            split: The part that calibrates; None: the one that training has not seen.
            **options: ``level``, ``output``, ``device``, ``threads``, ``format`` and ``max_unreadable``.

        Returns:
            {"n", "dataset", "split", "level", "coverage", "width", "before", "by_age", "bundle", "digest"}

        Raises:
            InputError: the answers of this task have no interval.
        """
        raise InputError(
            f"the answers of the task {self.name} have no interval, so there is nothing to calibrate; calibrate takes "
            "bundles of age"
        )

    def train(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains into the run's folder, draws the curves of every training in it, and gives the figures to print."""
        from edgedl.figures.curves import draw_curves
        from edgedl.training.processes import is_first_process

        result = self.learn(args, run_path)
        if is_first_process():
            draw_curves(run_path)
        return result

    def pull(self, path: AnyPath, **options: Any) -> Bundle:
        """Makes a bundle of public weights.

        Raises:
            InputError: there are none for this task.
        """
        raise InputError(
            f"there are no public weights to pull for {self.name}: `edgedl train {self.name}` takes {self.takes}, then "
            "export the run"
        )

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws what there is to see of a run and gives the pictures' paths: its curves, unless a task shows more.

        Raises:
            InputError: there is no run, or a clip was given to a task that captions none.
        """
        from edgedl.figures.curves import plot_run

        self.refuse_clip(clip)
        return [plot_run(path, output)]

    def refuse_clip(self, clip: str | None) -> None:
        """Refuses ``--clip``, which only a captioner can draw.

        Raises:
            InputError: a clip was given.
        """
        if clip is not None:
            raise InputError(f"--clip shows how a caption came about; {self.name} draws the pictures of a run only")


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
    *most, last = (_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in names)
    return f"{', '.join(most)} and {last}" if most else last
