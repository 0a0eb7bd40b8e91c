"""The timer: a start and a duration in, an answer that is up for exactly that long out, a step at a time."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.tasks.base import Task, refuse_options

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from exporters.quantize.judge import AnyJudge
    from runtime.bundle import Bundle


class TimerTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "timer"
    judged_on = "the timer is judged on sequences that are drawn for it"
    takes = "two minutes"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to the timer, and the training options."""
        from edgedl.tasks.timer.config import HIDDEN, NETWORKS, SELF_WEIGHT, TRAINING_LENGTH, recipe
        from edgedl.tasks.timer.data import LARGEST_SCALE, SCALE, SPACING
        from edgedl.training.arguments import add_training_arguments, default

        group = parser.add_argument_group("timer")
        group.add_argument("--network", choices=NETWORKS, help=f"the recurrent layer (default: {NETWORKS[0]})")
        group.add_argument("--hidden", type=int, metavar="N", help=f"recurrent units {default(HIDDEN)}")
        group.add_argument(
            "--self-weight", type=float, metavar="X",
            help=f"weight of a Jordan network's context units on themselves (default: {SELF_WEIGHT:g})",
        )  # fmt: skip
        group.add_argument(
            "--scale", type=int, metavar="STEPS",
            help=f"how many steps u2 = 1 stands for, {SCALE} to {LARGEST_SCALE} (default: {SCALE})",
        )  # fmt: skip
        group.add_argument(
            "--steps", type=int, metavar="N",
            help=f"steps of a training sequence (default: {TRAINING_LENGTH} scales, {TRAINING_LENGTH * SCALE})",
        )  # fmt: skip
        group.add_argument(
            "--spacing", type=float, metavar="X",
            help=f"scales from a start to the next while training, on average (default: {SPACING:g})",
        )  # fmt: skip
        group.add_argument(
            "--truncate", type=int, metavar="P",
            help="steps of the windows that a gradient goes back through (default: none, it goes back to the start)",
        )  # fmt: skip
        add_training_arguments(parser, {network: recipe(network) for network in NETWORKS})

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on sequences that are drawn as they are needed."""
        from edgedl.tasks.timer.training import train_timer

        return train_timer(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run through the gate into a bundle that declares its state."""
        from edgedl.tasks.timer.bundle import timer_bundle
        from edgedl.training.run import Run

        refuse_options(options, ("name", "untrained", "opset"), "a timer run is exported")
        return timer_bundle(Run.open(run_path), path, **options)

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on sequences that training never saw: exact pulses, MSE, and the MSE of always saying 0."""
        from edgedl.tasks.timer.evaluation import evaluate_timer
        from runtime.pipelines.tensors import TensorPipeline

        refuse_options(options, ("variant",), "a timer bundle is evaluated")
        self.refuse_data(data)
        with TensorPipeline.open(
            bundle, device=device, threads=threads or 1, variant=options.get("variant")
        ) as pipeline:
            return evaluate_timer(pipeline, split or "test")

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """The share of whole pulses that are timed exactly, on sequences that are drawn for it."""
        from edgedl.tasks.timer.evaluation import judge_timer

        self.refuse_data(data)
        return judge_timer(most)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws the curves of a run, and u1, u2, target and answer over time."""
        from edgedl.tasks.timer.plot import plot_timer

        self.refuse_clip(clip)
        return plot_timer(path, output)


TASK = TimerTask()
