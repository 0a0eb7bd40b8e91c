"""What a captioner's run was begun with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from edgedl.tasks.caption.data.bouncing_digits import FRAMES
from edgedl.tasks.caption.data.clip_features import VIEWS
from edgedl.tasks.run_config import Range, RunConfig, Settings, flag, option, resumed_otherwise
from runtime.errors import InputError
from runtime.media.frames import FrameSampling

DecoderName = Literal["spatial", "attention", "mean-pool", "mean-pool-paper"]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)
LOOKING: tuple[DecoderName, ...] = ("spatial", "attention")
"""The decoders that look at the places of a grid."""
PHOTO_SIZES = {"efficientnet-lite0": 320, "efficientnet-lite2": 352}
"""The published encoders, and the side at which they look at photos, in pixels."""
Cell = Literal["lstm", "gru"]
STRIDE = 32
"""Pixels between two places of a published encoder's grid."""
CELLS: tuple[Cell, ...] = get_args(Cell)


@dataclass(frozen=True, slots=True)
class CaptionOptions(Settings):
    """What is particular to learning captions.

    Attributes:
        label_smoothing: Share of each target that is spread over all words.
        word_dropout: Share of the words before that are hidden.
        scheduled_sampling: Share of the words before that are the network's own at the end of the training; it grows
            from 0 linearly with the epochs.
        self_critical: How many of the last epochs learn from their own samples' CIDEr-D instead of from the captions.
        samples: Captions that are sampled for each clip in self-critical learning, which compares them.
        self_critical_dropout: Dropout of what is remembered of a clip in self-critical learning, where nothing else is
            dropped: samples are drawn and scored by the same memory.
        top_from: Epochs before the encoder's top learns with the decoder.
        self_critical_top: The encoder's top learns in self-critical epochs, too; else it rests there again.
        concept_weight: Of a nat about which concepts a clip's captions have, beside a nat about a word.
    """

    label_smoothing: float = option(least=0, below=1, default=0.1)
    word_dropout: float = option(least=0, below=1, default=0.0)
    scheduled_sampling: float = option(least=0, below=1, default=0.0)
    self_critical: int = option(least=0, default=0)
    samples: int = option(least=2, default=5)
    self_critical_dropout: float = option(least=0, below=1, default=0.0)
    top_from: int = option(least=0, default=0)
    self_critical_top: bool = option(default=False)
    concept_weight: float = option(least=0, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionConfig(RunConfig):
    """The configuration of a captioner.

    Attributes:
        encoder: The network that looks at frames, see `edgedl.tasks.caption.training.network_of`.
        size: Pixels, the side that the published encoder looks at, a multiple of 32; None leaves the encoder's own.
        decoder: The network that speaks.
        pooled: The decoder gets the mean over the frames.
        cell: Of the recurrent layers.
        hidden: Units of a recurrent layer.
        embedding: Width of the word vectors.
        spread: Bounds of the initial word vectors.
        dropout: Share of words and readout that are dropped in training.
        memory_dropout: Share of the features' channels that are dropped in training.
        beam: Hypotheses that the search follows.
        max_length: Most words of a caption.
        length_penalty: The power of the length that scores are divided by.
        frames: Which frames of a clip are looked at, see `runtime.media.frames.FrameSampling.from_json`.
        shorter: Pixels, see `runtime.pipelines.caption.CaptionSettings`.
        drawn: Frames of a clip in a step where the encoder learns as well; None takes all.
        set_apart: Training clips that are not learnt from but choose the best epoch, others for each seed. With
            None the validation part chooses; else it is not looked at, so that what a bundle reaches there was not
            chosen there.
        views: Of each clip, so many are computed once, and training takes one of them by chance: as it is, mirrored,
            then shifted, scaled and lit otherwise.
        window: Places, see `edgedl.tasks.caption.batches.FeatureInputs`; None takes all.
        places: Of the encoder's grid that the decoder knows apart.
        concepts: At most so many of the most frequent words are told from the places, see
            `edgedl.tasks.caption.network.attention.AttendingDecoder`.
        top: The encoder's blocks behind its last halving belong to the decoder and learn with it; the rest is frozen.
        frozen: The encoder does not learn.
        learning: How the captions are learnt.
        vocabulary: The words of the tokens.
    """

    task = "caption"
    not_kept = ("fine_tune", "frames", "every", "rarest", "format", "max_unreadable", "clips", "cache")

    encoder: str = option()
    size: int | None = option(least=32, default=None)
    decoder: DecoderName = option()
    pooled: bool
    cell: Cell = option()
    hidden: int = option(least=1)
    embedding: int = option(least=1)
    spread: float
    dropout: float = option(least=0, below=1)
    memory_dropout: float = option(least=0, below=1, default=0.0)  # runs from before 2026-11-28 have none
    beam: int = option(least=1)
    max_length: int = option(least=1)
    length_penalty: float
    frames: Mapping[str, Any]
    shorter: int
    drawn: int | None = None
    views: int = option(least=1, below=len(VIEWS) + 1, default=2)  # runs from before 2026-12 have two
    window: int | None = None
    set_apart: int | None = option(least=0, default=None)
    places: int
    concepts: int = option(least=0, default=0)  # runs from before 2026-12 have none
    top: bool = option(default=False)  # runs from before 2026-11-30 have none
    frozen: bool
    learning: CaptionOptions = field(default_factory=CaptionOptions)
    vocabulary: tuple[str, ...]

    def check_resumed(self, args: Namespace, run_path: Path) -> None:
        """Refuses options that differ from those that the run was begun with.

        Raises:
            InputError: an option was given with another value.
        """
        RunConfig.check_resumed(self, args, run_path)
        if args.fine_tune and self.frozen:
            raise InputError(f"{run_path} was begun with an encoder that does not learn; resume it without --fine-tune")
        if given_frames(args).get("frames", self.frames) != self.frames:
            raise resumed_otherwise(run_path, "frames" if self.frames["kind"] == "even" else "every", self.frames["n"])


def check_data_options(args: Namespace) -> None:
    """Checks the options that say what is learnt from.

    Raises:
        InputError: an option is out of range, or belongs to other data.
    """
    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
    if args.fine_tune and args.top:
        raise InputError("--fine-tune lets the whole encoder learn, --top its last blocks only; give one of them")
    looks = args.decoder in (None, *LOOKING)
    if args.top and not looks:
        raise InputError(f"--top is for decoders that look at places: {' and '.join(LOOKING)}, not {args.decoder}")
    if (args.top_from or args.self_critical_top) and (args.top is False or args.fine_tune or not looks):
        raise InputError(
            "--top-from and --self-critical-top say when the encoder's top learns; with these options it has none "
            "(see --top)"
        )
    if args.concepts and not looks:
        raise InputError(f"--concepts is for decoders that look at places: {' and '.join(LOOKING)}, not {args.decoder}")
    told = (args.concepts is None and args.data) or args.concepts
    if args.concept_weight and not (told and looks):
        raise InputError(
            "--concept-weight says how much concepts count; with these options there are none (see --concepts)"
        )
    if args.fine_tune and not args.data:
        raise InputError("--fine-tune lets the published encoder learn; it needs --data")
    if args.fine_tune and args.views is not None:
        raise InputError("--views counts what is computed once of each clip; with --fine-tune nothing is")
    of_data = ("encoder", "size", "set_apart", "views", "top", "top_from", "self_critical_top")
    if not args.data and any(getattr(args, name) for name in of_data):
        *names, last = [flag(name) for name in of_data]
        raise InputError(f"{', '.join(names)} and {last} are for photos and videos; they need --data")
    if args.size is not None and args.size % STRIDE:
        raise InputError(f"--size must be a multiple of {STRIDE}, not {args.size}")
    if not args.data and (args.frames is not None or args.every is not None):
        raise InputError(
            f"the embedded clips are {FRAMES} frames, all of which are looked at; --frames and --every need --data"
        )
    if args.data and args.clips is not None:
        raise InputError("--clips counts embedded clips; it does not go together with --data")
    if args.frames is not None and args.every is not None:
        raise InputError("--frames spreads so many frames, --every takes one in so many; give one of them")
    if args.rarest is not None:
        Range(least=1).check("--rarest", args.rarest)


def given_frames(args: Namespace) -> dict[str, Any]:
    """The field ``frames``, where an option sets it; empty otherwise."""
    if args.frames is not None:
        return {"frames": FrameSampling.even(args.frames).to_json()}
    return {"frames": FrameSampling.every(args.every).to_json()} if args.every is not None else {}
