"""The vanishing gradient: three networks that have to remember what came first, and how much of it is left in them."""

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


class GradientsTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "gradients"
    judged_on = "store and recall is judged on sequences that are drawn for it"
    takes = "a minute"
    resumes = False

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares which networks are compared, and the training options, which then hold for each of them."""
        from edgedl.tasks.gradients.config import COMPARED, HIDDEN, KINDS, recipe
        from edgedl.tasks.gradients.data import STEPS
        from edgedl.training.arguments import add_training_arguments, default

        group = parser.add_argument_group("gradients", "training options that are given hold for every network")
        group.add_argument(
            "--network",
            nargs="+",
            choices=KINDS,
            metavar="NAME",
            help=f"{', '.join(KINDS)} (default: {' '.join(COMPARED)})",
        )
        group.add_argument(
            "--hidden", type=int, metavar="N", help=f"recurrent units, for equally many weights {default(HIDDEN)}"
        )
        group.add_argument("--steps", type=int, metavar="N", help=f"steps of a sequence (default: {STEPS})")
        add_training_arguments(parser, {kind: recipe(kind) for kind in KINDS})

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains every network on sequences that are drawn as they are needed, and looks into it before and after."""
        from edgedl.tasks.gradients.training import train_gradients

        return train_gradients(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of memory blocks of a run through the gate into a bundle that declares its state."""
        from edgedl.tasks.gradients.bundle import recall_bundle
        from edgedl.training.run import Run

        refuse_options(options, ("name", "untrained", "opset"), "a run of gradients is exported")
        return recall_bundle(Run.open(run_path), path, **options)

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on sequences that training never saw: the squared error of what is asked, near and far."""
        from edgedl.tasks.gradients.evaluation import evaluate_recall
        from runtime.pipelines.tensors import TensorPipeline

        refuse_options(options, ("variant",), "a bundle of gradients is evaluated")
        self.refuse_data(data)
        with TensorPipeline.open(
            bundle, device=device, threads=threads or 1, variant=options.get("variant")
        ) as pipeline:
            return evaluate_recall(pipeline, split or "test")

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """The squared error of what is asked, on sequences that are drawn for it."""
        from edgedl.tasks.gradients.evaluation import judge_recall

        self.refuse_data(data)
        return judge_recall(most)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws |∂h_t/∂x_1| before and after training, the gates of trained memory blocks, and untrained networks."""
        from edgedl.tasks.gradients.plot import plot_gradients

        self.refuse_clip(clip)
        return plot_gradients(path, output)


TASK = GradientsTask()
