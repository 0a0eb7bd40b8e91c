"""Captions: photos and videos with what people said of them in, a captioner out."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from pathlib import Path
from typing import Any

DECODERS = ("attention", "mean-pool", "mean-pool-paper")


class CaptionTask:
    """See `edgedl.tasks.Task`."""

    name = "caption"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to captions, and the training options."""
        from edgedl.training.arguments import add_training_arguments

        group = parser.add_argument_group("captions")
        group.add_argument("--fine-tune", action="store_true", help="let the published encoder learn as well")
        group.add_argument("--decoder", choices=DECODERS, help="how frames become words")
        group.add_argument("--cell", choices=("lstm", "gru"), help="of the two recurrent layers")
        group.add_argument("--hidden", type=int, metavar="N", help="units of a recurrent layer")
        group.add_argument("--embedding", type=int, metavar="N", help="width of the word vectors")
        group.add_argument("--dropout", type=float, metavar="SHARE", help="of words, features and readout")
        group.add_argument("--beam", type=int, metavar="K", help="hypotheses that the exported search follows")
        group.add_argument("--max-length", type=int, metavar="L", help="most words of a caption")
        group.add_argument("--frames", type=int, metavar="N", help="look at N frames of a clip, evenly spread")
        group.add_argument("--every", type=int, metavar="N", help="look at one frame in N instead, as the paper: 10")
        group.add_argument("--rarest", type=int, metavar="N", help="words that occur less often are unknown ones")
        group.add_argument("--label-smoothing", type=float, metavar="SHARE", help="spread over all words")
        group.add_argument("--word-dropout", type=float, metavar="SHARE", help="of the words before that are hidden")
        group.add_argument(
            "--scheduled-sampling", type=float, metavar="SHARE", help="of the words before that are the network's own"
        )
        group.add_argument(
            "--self-critical", type=int, metavar="N", help="the last N epochs learn from their own samples' CIDEr-D"
        )
        group.add_argument("--samples", type=int, metavar="N", help="captions sampled of a clip for that")
        group.add_argument("--format", metavar="F", help="of --data, where it cannot be told from its contents")
        group.add_argument("--clips", type=int, metavar="N", help="how many embedded clips to learn from")
        group.add_argument(
            "--cache", action=BooleanOptionalAction, default=True, help="keep a frozen encoder's features"
        )
        add_training_arguments(parser)

    def train(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on --data, or on the embedded bouncing digits."""
        from edgedl.tasks.caption_training import train_caption

        return train_caption(args, run_path)


TASK = CaptionTask()
