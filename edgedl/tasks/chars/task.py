"""Characters: a text in, a model that goes on with it out; character by character it finds words and stories."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.tasks.base import Task, refuse_options

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from runtime.bundle import Bundle


class CharsTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "chars"
    takes = "two minutes"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to characters, and the training options."""
        from edgedl.training.arguments import add_training_arguments

        group = parser.add_argument_group("characters", "--data is a UTF-8 text file, without it the embedded stories")
        group.add_argument("--cell", choices=("lstm", "gru"), help="of the recurrent layers (default: lstm)")
        group.add_argument("--hidden", type=int, metavar="N", help="units of a layer (default: 128)")
        group.add_argument("--layers", type=int, metavar="N", help="recurrent layers (default: 1)")
        group.add_argument("--embedding", type=int, metavar="N", help="width of a character's vector (default: 32)")
        group.add_argument("--dropout", type=float, metavar="SHARE", help="around each layer (default: 0)")
        group.add_argument("--sequence", type=int, metavar="T", help="characters that a gradient sees (default: 50)")
        group.add_argument(
            "--rarest", type=int, metavar="N", help="characters that occur less often are unknown ones (default: 3)"
        )
        add_training_arguments(parser)

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on --data, or on the embedded stories."""
        from edgedl.tasks.chars.training import train_chars

        return train_chars(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run through the gate into a bundle."""
        from edgedl.tasks.chars.bundle import chars_bundle
        from edgedl.training.run import Run

        refuse_options(options, ("name", "untrained", "opset"), "a chars run is exported")
        return chars_bundle(Run.open(run_path), path, **options)

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on text, by default on the end of the embedded stories: nats per character, and a trigram."""
        from edgedl.tasks.chars.data.texts import open_text
        from edgedl.tasks.chars.evaluation import evaluate_text
        from edgedl.training.progress import Progress
        from runtime.pipelines import load

        refuse_options(options, ("variant",), "a chars bundle is evaluated")
        text = open_text(data)
        with load(bundle, device=device, threads=threads, variant=options.get("variant")) as pipeline:
            return evaluate_text(pipeline, text, split or ("test" if data is None else "all"), Progress("characters"))


TASK = CharsTask()
