"""Captions: photos and videos with what people said of them in, a captioner out."""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedl.data.unreadable import MAX_SHARE, OPTION
from edgedl.tasks.base import Task, refuse_options
from runtime.errors import InputError

if TYPE_CHECKING:
    from edgedl.tasks.base import AnyPath
    from exporters.quantize.judge import AnyJudge
    from runtime.bundle import Bundle


class CaptionTask(Task):
    """See `edgedl.tasks.base.Task`."""

    name = "caption"

    def add_train_arguments(self, parser: ArgumentParser) -> None:
        """Declares what is particular to captions, and the training options."""
        from edgedl.tasks.caption.config import CELLS, DECODERS, PHOTO_SIZES
        from edgedl.tasks.caption.data.bouncing_digits import CLIPS
        from edgedl.tasks.caption.data.clip_features import VIEWS
        from edgedl.tasks.caption.recipes import recipes
        from edgedl.training.arguments import add_training_arguments, default

        usual = recipes()

        def network(name: str) -> str:
            return default({choice: recipe.network[name] for choice, recipe in usual.items()})

        def learning(name: str) -> str:
            return default({choice: getattr(recipe.captions, name) for choice, recipe in usual.items()})

        frames = default({choice: recipe.network["frames"]["n"] for choice, recipe in usual.items()})
        rarest = default({choice: recipe.rarest for choice, recipe in usual.items()})
        group = parser.add_argument_group("captions")
        group.add_argument("--fine-tune", action="store_true", help="let the published encoder learn as well")
        group.add_argument(
            "--encoder",
            choices=tuple(PHOTO_SIZES),
            help=f"the network that looks at photos {network('encoder')}",
        )
        group.add_argument(
            "--size",
            type=int,
            metavar="PIXELS",
            help="the side at which it looks at them, a multiple of 32 (default: "
            + ", ".join(f"{name}: {size}" for name, size in PHOTO_SIZES.items())
            + ")",
        )
        group.add_argument(
            "--top",
            action=BooleanOptionalAction,
            help="let the encoder's last blocks learn, those behind the last halving of its grid; what they are given "
            f"is computed once and looked at as well {network('top')}",
        )
        group.add_argument(
            "--top-from",
            type=int,
            metavar="N",
            help=f"let them rest in the first N epochs {learning('top_from')}",
        )
        group.add_argument(
            "--self-critical-top",
            action=BooleanOptionalAction,
            help=f"let them learn in self-critical epochs, too {learning('self_critical_top')}",
        )
        group.add_argument(
            "--set-apart",
            type=int,
            metavar="N",
            help="choose the best epoch by N training clips that are not learnt from, others for each seed, instead of "
            "by the validation part (default: none)",
        )
        group.add_argument(
            "--views",
            type=int,
            metavar="N",
            help="learn from N views of each clip: as it is, mirrored, then shifted, scaled and lit otherwise, at most "
            f"{len(VIEWS)} {network('views')}",
        )
        group.add_argument(
            "--decoder",
            choices=DECODERS,
            help="attention behind one recurrent layer (spatial) or between two, or one of two forms of mean pooling "
            + network("decoder"),
        )
        group.add_argument(
            "--concepts",
            type=int,
            metavar="N",
            help="tell which of the N most frequent words a clip shows, before the words are chosen; 0 for none "
            + network("concepts"),
        )
        group.add_argument(
            "--concept-weight",
            type=float,
            metavar="X",
            help=f"of a nat about them beside a nat about a word {learning('concept_weight')}",
        )
        group.add_argument("--cell", choices=CELLS, help=f"of the recurrent layers {network('cell')}")
        group.add_argument("--hidden", type=int, metavar="N", help=f"units of a recurrent layer {network('hidden')}")
        group.add_argument(
            "--embedding", type=int, metavar="N", help=f"width of the word vectors {network('embedding')}"
        )
        group.add_argument("--dropout", type=float, metavar="SHARE", help=f"of words and readout {network('dropout')}")
        group.add_argument(
            "--memory-dropout",
            type=float,
            metavar="SHARE",
            help=f"of features, whole channels {network('memory_dropout')}",
        )
        group.add_argument(
            "--beam", type=int, metavar="K", help=f"hypotheses that the exported search follows {network('beam')}"
        )
        group.add_argument(
            "--max-length", type=int, metavar="L", help=f"most words of a caption {network('max_length')}"
        )
        group.add_argument(
            "--frames", type=int, metavar="N", help=f"look at N frames of a clip, evenly spread {frames}"
        )
        group.add_argument(
            "--every",
            type=int,
            metavar="N",
            help="look at one frame in N instead, as the paper: 10 (default: see --frames)",
        )
        group.add_argument(
            "--rarest", type=int, metavar="N", help=f"words that occur less often are unknown ones {rarest}"
        )
        group.add_argument(
            "--label-smoothing",
            type=float,
            metavar="SHARE",
            help=f"spread over all words {learning('label_smoothing')}",
        )
        group.add_argument(
            "--word-dropout",
            type=float,
            metavar="SHARE",
            help=f"of the words before that are hidden {learning('word_dropout')}",
        )
        group.add_argument(
            "--scheduled-sampling",
            type=float,
            metavar="SHARE",
            help=f"of the words before that are the network's own {learning('scheduled_sampling')}",
        )
        group.add_argument(
            "--self-critical",
            type=int,
            metavar="N",
            help=f"the last N epochs learn from their own samples' CIDEr-D {learning('self_critical')}",
        )
        group.add_argument(
            "--samples", type=int, metavar="N", help=f"captions sampled of a clip for that {learning('samples')}"
        )
        group.add_argument(
            "--self-critical-dropout",
            type=float,
            metavar="SHARE",
            help=f"of features, in those epochs {learning('self_critical_dropout')}",
        )
        group.add_argument("--format", metavar="F", help="of --data (default: told by its contents)")
        group.add_argument(
            OPTION,
            type=float,
            default=MAX_SHARE,
            metavar="SHARE",
            help=f"of the files of --data that may be left out because they cannot be read (default: {MAX_SHARE:g})",
        )
        group.add_argument(
            "--clips", type=int, metavar="N", help=f"how many embedded clips to learn from (default: {CLIPS})"
        )
        group.add_argument(
            "--cache", action=BooleanOptionalAction, default=True, help="keep a frozen encoder's features (default: on)"
        )
        add_training_arguments(parser, {choice: recipe.options for choice, recipe in usual.items()})

    def learn(self, args: Namespace, run_path: Path) -> dict[str, Any]:
        """Trains on --data, or on the embedded bouncing digits."""
        from edgedl.tasks.caption.training import train_caption

        return train_caption(args, run_path)

    def export(self, run_path: AnyPath, path: AnyPath, **options: Any) -> Bundle:
        """Takes the best network of a run, search and all, through the gate into a bundle."""
        from edgedl.tasks.caption.bundle import caption_bundle
        from edgedl.tasks.caption.config import CaptionConfig
        from edgedl.tasks.caption.data.bouncing_digits import NAME, example_clips
        from edgedl.tasks.caption.training import captioner_of, weights_of
        from edgedl.training.run import Run

        refuse_options(options, ("name", "others", "untrained"), "a caption run is exported")
        run, others = Run.open(run_path), [Run.open(path) for path in options.get("others", ())]
        network, vocabulary, settings = captioner_of(run, *others)
        config = CaptionConfig.of(run)
        spoken = f"{len(others) + 1} decoders" if others else "a decoder"
        return caption_bundle(
            path,
            network,
            vocabulary,
            settings=settings,
            name=options.get("name", "caption"),
            version="1.0.0",
            description=f"What a photo or video shows, in a sentence; {config.encoder} with {spoken} by "
            f"{config.decoder}, trained on {config.data['name']}",
            license=config.license,
            weights=weights_of(config),
            provenance={"data": config.data, "seed": config.seed, "run": run.created}
            | ({"others": [[CaptionConfig.of(other).seed, other.created] for other in others]} if others else {}),
            untrained=bool(options.get("untrained", False)),
            shown=example_clips() if config.data["name"] == NAME else (),
        )

    def pull(self, path: AnyPath, **options: Any) -> Bundle:
        """Refuses: there is nothing to pull."""
        raise InputError(
            "there is no public captioner to pull: train one with `edgedl train caption`, with --data FLICKR8K.zip on "
            "photos, and export the run"
        )

    def evaluate(
        self, bundle: AnyPath, data: AnyPath | None, split: str | None, device: str, threads: int | None, **options: Any
    ) -> Mapping[str, Any]:
        """Judges a bundle on described clips, without data on bouncing digits: BLEU, ROUGE-L, CIDEr-D, accuracy."""
        from edgedl.data.spreading import Elsewhere
        from edgedl.tasks.caption.evaluation import evaluate_bundle
        from edgedl.training.progress import Progress
        from runtime.pipelines.caption import CaptionPipeline

        refuse_options(options, ("variant", "format", "max_unreadable", "spread"), "a caption bundle is evaluated")
        # The clips run side by side, so the graph gets one thread unless more were asked for.
        opened = partial(CaptionPipeline.open, device=device, threads=threads or 1, variant=options.get("variant"))
        spread = options.get("spread")
        with opened(bundle) as pipeline:
            return evaluate_bundle(
                pipeline,
                data,
                split,
                Progress("captions"),
                format=options.get("format"),
                max_unreadable=options.get("max_unreadable", MAX_SHARE),
                elsewhere=None if spread is None else Elsewhere(spread, opened),
            )

    def judge(self, data: AnyPath | None, format: str | None, most: int | None) -> AnyJudge:  # noqa: A002
        """How good the captions are, without data those of bouncing digits."""
        from edgedl.tasks.caption.data.bouncing_digits import BouncingDigits
        from edgedl.tasks.caption.data.captions import open_captions
        from edgedl.tasks.caption.evaluation import judge_captions

        return judge_captions(BouncingDigits() if data is None else open_captions(data, format), most)

    def plot(self, path: AnyPath, output: AnyPath | None, *, clip: str | None = None) -> list[Path]:
        """Draws the curves of a run; with a clip, its frames and where the decoder of a run looked for each word."""
        from edgedl.figures.curves import plot_run
        from edgedl.tasks.caption.plot import plot_caption

        return [plot_run(path, output) if clip is None else plot_caption(path, clip, output)]


TASK = CaptionTask()
