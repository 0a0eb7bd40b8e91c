"""Long time lags: an answer depends on what stood far before it; Elman network, LSTM and GRU on the same budget."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.tasks.base import Task, refuse_options

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from edgedl.training.options import TrainOptions
    from exporters.quantize.judge import AnyJudge
    from runtime.bundle import Bundle


class LongLagTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "longlag"
    judged_on = "long time lags are judged on sequences that are drawn for it"
    takes = "minutes"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares the problem, the networks, and the training options, which then hold for each network."""
        from edgedl.tasks.longlag.config import BUDGETS, NETWORKS, PROBLEM, default_units, recipe
        from edgedl.tasks.longlag.data import PROBLEMS
        from edgedl.training.arguments import add_training_arguments, default

        group = parser.add_argument_group("longlag", "training options that are given hold for every network")
        group.add_argument(
            "--problem",
            choices=list(PROBLEMS),
            help=f"adding, copy memory, temporal order (6a), or digits pixel by pixel (default: {PROBLEM})",
        )
        group.add_argument(
            "--network", nargs="+", choices=NETWORKS, metavar="NAME", help=f"{', '.join(NETWORKS)} (default: all)"
        )
        lengths = default({name: problem.length for name, problem in PROBLEMS.items()})
        group.add_argument("--length", type=int, metavar="T", help=f"steps of the lag {lengths}")
        units = ", ".join(f"{network} {default_units(PROBLEM, network)}" for network in NETWORKS)
        group.add_argument(
            "--hidden",
            type=int,
            metavar="N",
            help="recurrent units of each network (default: as many as make all about equally large, with "
            f"{PROBLEM} {units})",
        )
        # A recipe depends on two choices, each of a part of its own.
        recipes: dict[str, TrainOptions] = {network: recipe(PROBLEM, network) for network in NETWORKS}
        recipes |= {problem: recipe(problem, NETWORKS[0]) for problem in BUDGETS if problem != PROBLEM}
        add_training_arguments(parser, recipes)

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains each network on the same sequences, which are drawn as they are needed."""
        from edgedl.tasks.longlag.plot import plot_longlag
        from edgedl.tasks.longlag.training import train_longlag

        result = train_longlag(args, run_path)
        plot_longlag(run_path, None)
        return result

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the network that validates best, or the one whose own run is given, through the gate into a bundle."""
        from edgedl.tasks.longlag.bundle import longlag_bundle
        from edgedl.training.run import Run

        refuse_options(options, ("name", "untrained", "opset"), "a longlag run is exported")
        return longlag_bundle(Run.open(run_path), path, **options)

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on 2,560 fresh sequences, of digits on the test part: how many are wrong, and the loss."""
        from edgedl.tasks.longlag.evaluation import evaluate_longlag
        from runtime.pipelines.tensors import TensorPipeline

        refuse_options(options, ("variant",), "a longlag bundle is evaluated")
        self.refuse_data(data)
        with TensorPipeline.open(
            bundle, device=device, threads=threads or 1, variant=options.get("variant")
        ) as pipeline:
            return evaluate_longlag(pipeline, split or "test")

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """The share of sequences that are right, on sequences that are drawn for it."""
        from edgedl.tasks.longlag.evaluation import judge_longlag

        self.refuse_data(data)
        return judge_longlag(most)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws errors against updates, and what reaches back through each network."""
        from edgedl.tasks.longlag.plot import plot_longlag

        self.refuse_clip(clip)
        return plot_longlag(path, output)


TASK = LongLagTask()
