"""Handwritten digits: a picture of one digit in, which it is out; a deep belief net draws them, too."""

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


class DigitsTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "digits"
    judged_on = "digits are judged on the embedded ones"
    takes = "less than a minute"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to digits, and the training options."""
        from edgedl.tasks.digits.config import BELIEF, MODEL, MODELS, recipe
        from edgedl.training.arguments import add_training_arguments

        def told(text: str, name: str) -> str:
            return f"{text} (default: {BELIEF[name]:g})"

        group = parser.add_argument_group("digits")
        group.add_argument(
            "--model", choices=MODELS, help=f"soft-max regression, CNN or deep belief net (default: {MODEL})"
        )
        belief = parser.add_argument_group("deep belief net")
        belief.add_argument(
            "--hidden", type=int, nargs="+", metavar="N",
            help=f"units of each layer, from below (default: {' '.join(map(str, BELIEF['hidden']))})",
        )  # fmt: skip
        belief.add_argument(
            "--pretrain-epochs", type=int, metavar="N",
            help=told("epochs of each Boltzmann machine, before fine-tuning", "pretrain_epochs"),
        )  # fmt: skip
        belief.add_argument(
            "--pretrain-lr", type=float, metavar="X", help=told("learning rate of the machines", "pretrain_lr")
        )
        belief.add_argument(
            "--cd-steps", type=int, metavar="K", help=told("steps of Gibbs sampling, the k of CD-k", "cd_steps")
        )
        belief.add_argument(
            "--persistent", action="store_true", default=None,
            help="PCD: the chains go on from update to update (Tieleman 2008)",
        )  # fmt: skip
        add_training_arguments(parser, {model: recipe(model) for model in (MODEL, *MODELS)}, augmented=True)

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on the embedded digits."""
        from edgedl.tasks.digits.training import train_digits

        return train_digits(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run through the gate into a bundle; a deep belief net's way down with it."""
        from edgedl.tasks.digits.bundle import digits_bundle
        from edgedl.training.run import Run

        refuse_options(options, ("name", "untrained", "opset"), "a digits run is exported")
        return digits_bundle(Run.open(run_path), path, **options)

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on the fifth of the digits that training never sees: accuracy and who is taken for whom."""
        from edgedl.tasks.digits.evaluation import evaluate_digits
        from runtime.pipelines.digits import DigitsPipeline

        refuse_options(options, ("variant",), "a digits bundle is evaluated")
        self.refuse_data(data)
        with DigitsPipeline.open(
            bundle, device=device, threads=threads or 1, variant=options.get("variant")
        ) as pipeline:
            return evaluate_digits(pipeline, split or "test")

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """The accuracy on the embedded digits."""
        from edgedl.tasks.digits.evaluation import judge_digits

        self.refuse_data(data)
        return judge_digits(most)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws the curves of a run and its first filters; of a deep belief net also what its machines learnt."""
        from edgedl.tasks.digits.plot import plot_digits

        self.refuse_clip(clip)
        return plot_digits(path, output)


TASK = DigitsTask()
