"""Handwritten digits: a picture of one digit in, which it is out; a deep belief net draws them, too."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.tasks.base import Task, refuse_options
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from runtime.bundle import Bundle

MODELS = ("softmax", "cnn", "dbn")


class DigitsTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "digits"
    takes = "less than a minute"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to digits, and the training options."""
        from edgedl.training.arguments import add_training_arguments

        group = parser.add_argument_group("digits")
        group.add_argument("--model", choices=MODELS, help="soft-max regression, CNN (default) or deep belief net")
        belief = parser.add_argument_group("deep belief net")
        belief.add_argument("--hidden", type=int, nargs="+", metavar="N", help="units of each layer, from below")
        belief.add_argument("--pretrain-epochs", type=int, metavar="N", help="of each machine, before fine-tuning")
        belief.add_argument("--pretrain-lr", type=float, metavar="X", help="learning rate of the machines")
        belief.add_argument("--cd-steps", type=int, metavar="K", help="steps of Gibbs sampling, the k of CD-k")
        belief.add_argument(
            "--persistent", action="store_true", help="PCD: the chains go on from update to update (Tieleman 2008)"
        )
        add_training_arguments(parser)

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
        from runtime.pipelines import load

        refuse_options(options, ("variant",), "a digits bundle is evaluated")
        if data is not None:
            raise InputError("digits are judged on the embedded ones; --data is not read")
        with load(bundle, device=device, threads=threads or 1, variant=options.get("variant")) as pipeline:
            return evaluate_digits(pipeline, split or "test")

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws the curves of a run and its first filters; of a deep belief net also what its machines learnt."""
        from edgedl.tasks.digits.plot import plot_digits

        self.refuse_clip(clip)
        return plot_digits(path, output)


TASK = DigitsTask()
