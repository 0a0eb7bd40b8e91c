"""Characters: a text in, a model that goes on with it out; character by character it finds words and stories."""

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


class CharsTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "chars"
    takes = "two minutes"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to characters, and the training options."""
        from edgedl.tasks.chars.config import CELLS, EMBEDDED_RAREST, NETWORK, RAREST, SEQUENCE, recipe
        from edgedl.training.arguments import add_training_arguments

        def default(name: str) -> str:
            return f"(default: {NETWORK[name]:g})"

        group = parser.add_argument_group("characters", "--data is a UTF-8 text file, without it the embedded stories")
        group.add_argument("--cell", choices=CELLS, help=f"of the recurrent layers (default: {NETWORK['cell']})")
        group.add_argument("--hidden", type=int, metavar="N", help=f"units of a layer {default('hidden')}")
        group.add_argument("--layers", type=int, metavar="N", help=f"recurrent layers {default('layers')}")
        group.add_argument(
            "--embedding", type=int, metavar="N", help=f"width of a character's vector {default('embedding')}"
        )
        group.add_argument("--dropout", type=float, metavar="SHARE", help=f"around each layer {default('dropout')}")
        group.add_argument(
            "--sequence", type=int, metavar="T", help=f"characters that a gradient sees (default: {SEQUENCE})"
        )
        group.add_argument(
            "--rarest", type=int, metavar="N",
            help="characters of the text that occur less often are unknown ones "
            f"(default: {RAREST} with --data, {EMBEDDED_RAREST} with the stories)",
        )  # fmt: skip
        add_training_arguments(parser, {"": recipe()})

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
        from runtime.pipelines.chars import CharsPipeline

        refuse_options(options, ("variant",), "a chars bundle is evaluated")
        text = open_text(data)
        with CharsPipeline.open(bundle, device=device, threads=threads, variant=options.get("variant")) as pipeline:
            return evaluate_text(pipeline, text, split or ("test" if data is None else "all"), Progress("characters"))

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """Nats per character, without a text on the embedded stories."""
        from edgedl.tasks.chars.data.texts import open_text
        from edgedl.tasks.chars.evaluation import judge_text

        return judge_text(open_text(data), most)


TASK = CharsTask()
