"""How captioners learn: clips and their captions, the recipes, and the network of a run."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgedl.data.captions import open_captions
from edgedl.data.clip_features import Clips, clip_features
from edgedl.data.vocabulary import build, encode, tokenise
from edgedl.nn.captioning import AttentionDecoder, CaptionNetwork, Decoder, MeanPoolDecoder
from edgedl.nn.efficientnet_lite import EfficientNetLite0
from edgedl.training.arguments import train_options
from edgedl.training.captioning import CaptionLearning, CaptionOptions
from edgedl.training.cider import CiderD
from edgedl.training.clip_batches import ClipBatches, ClipInputs, FeatureInputs, PixelInputs
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.progress import Progress
from edgedl.training.run import Run
from edgedl.training.speed import bf16_is_fast
from edgedl.weights.catalogue import EFFICIENTNET_LITE0, PublicWeights
from edgedl.weights.efficientnet_lite0 import load_efficientnet_lite0
from edgedl.weights.fetch import cache_folder
from runtime.errors import InputError
from runtime.vocabulary import END, Vocabulary

log = logging.getLogger(__name__)

RAREST = 5
"""Words that occur less often in the training captions are unknown ones."""

JUDGED_AT_ONCE = 50

DECODERS = ("attention", "mean-pool", "mean-pool-paper")

_ENCODERS: Mapping[str, Callable[[], nn.Module]] = {
    "efficientnet-lite0": EfficientNetLite0,
}


class CaptionedClips(Clips, Protocol):
    """Clips of a data set with what people said of them."""

    def captions(self, index: int) -> tuple[str, ...]:
        """Everything that was said of a clip, at least one sentence."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the defaults of one kind of data were measured.

    Attributes:
        options: of the training.
        captions: of what is learnt.
        network: keys of the run's configuration, see `network_of`.
        rows: captions of a clip in a batch.
        rarest: words that occur less often are unknown ones.
        learnt_length: words of a training caption; what is longer is cut, because a batch costs as much as its longest.
    """

    options: TrainOptions
    captions: CaptionOptions
    network: Mapping[str, Any]
    rows: int
    rarest: int
    learnt_length: int


def photo_recipe() -> Recipe:
    """From the features of the published encoder, on some thousand photos or videos with five captions each."""
    return Recipe(
        options=TrainOptions(
            epochs=19,
            batch_size=20,
            optimiser="adamw",
            lr=1e-3,
            betas=(0.9, 0.98),
            weight_decay=0.02,
            schedule="cosine",
            warmup=0.5,
            settle=6,
            ema=0.998,
            clip=5.0,
            bf16=bf16_is_fast(),
        ),
        captions=CaptionOptions(label_smoothing=0.1, self_critical=6),
        network={
            "encoder": "efficientnet-lite0",
            "decoder": "attention",
            "cell": "lstm",
            "hidden": 384,
            "embedding": 384,
            "dropout": 0.4,
            "places": 49,
            "beam": 3,
            "max_length": 20,
            "length_penalty": 0.7,
            "frames": {"kind": "even", "n": 8},
        },
        rows=5,
        rarest=RAREST,
        learnt_length=16,
    )


def train_caption(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a captioner as the command line says.

    Returns:
        CIDEr-D of the best epoch's greedy captions, its number, and the seconds taken.

    Raises:
        InputError: data or options that do not fit.
    """
    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
    recipe = photo_recipe()
    run = Run.open(run_path) if args.resume else None
    dataset = open_captions(args.data, args.format)
    log.info("%s", dataset.summary())
    options = train_options(args, recipe.options)
    learnt = _given(recipe.captions, args)
    train, validation = dataset.split("train"), dataset.split("val")
    known = run.config if run else _config(args, dataset, recipe, options, learnt)
    if (known["data"]["name"], known["data"]["n"]) != (dataset.name, len(dataset)):
        raise InputError(
            f"{run_path} was begun on {known['data']['n']} clips of {known['data']['name']}, not on {len(dataset)} of "
            f"{dataset.name}; resume it with the data that it was begun with"
        )
    vocabulary = Vocabulary(tuple(known["vocabulary"])) if run else _vocabulary(train, args.rarest or recipe.rarest)
    config = {**known, "vocabulary": list(vocabulary.words)}
    torch.manual_seed(options.seed)
    network = network_of(config)
    if config["weights"]:
        network.encoder.load_state_dict(load_efficientnet_lite0().state_dict())
    network.freeze_encoder(bool(config["frozen"]))
    inputs = _inputs(network, config, train, validation, args)
    if run is None:
        run = Run.create(run_path, config)
    said, held = (
        [[encode(vocabulary, text) for text in part.captions(index)] for index in range(len(part))]
        for part in (train, validation)
    )
    batches = partial(ClipBatches, rows=recipe.rows, max_length=recipe.learnt_length, epochs=options.epochs)
    learning = CaptionLearning(
        learnt,
        epochs=options.epochs,
        max_length=int(config["max_length"]),
        judge=CiderD([_references(vocabulary, validation.captions(i)) for i in range(len(validation))]),
        reward=CiderD([[[*tokens, END] for tokens in lines] for lines in said]) if learnt.self_critical else None,
    )
    result = fit(
        TaskModule(network, learning),
        batches(inputs["train"], said, batch_size=options.batch_size, seed=options.seed),
        batches(inputs["val"], held, batch_size=JUDGED_AT_ONCE, train=False),
        run,
        options,
    )
    return {
        "metric": result.metric,
        "best": result.best,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(result.seconds, 1),
        "words": len(vocabulary) - 2,
    }


def network_of(config: Mapping[str, Any]) -> CaptionNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a network that this version does not have.
    """
    if config["encoder"] not in _ENCODERS:
        raise InputError(f"unknown encoder {config['encoder']!r}; there is {', '.join(_ENCODERS)}")
    encoder = _ENCODERS[config["encoder"]]()
    features, words = int(encoder.features), len(config["vocabulary"])  # type: ignore[arg-type]  # a plain int attribute
    shape = {name: config[name] for name in ("embedding", "hidden", "cell", "dropout", "places")}
    kind = config["decoder"]
    if kind not in DECODERS:
        raise InputError(f"unknown decoder {kind!r}; there is {', '.join(DECODERS)}")
    decoder: Decoder = (
        AttentionDecoder(features, words, **shape)
        if kind == "attention"
        else MeanPoolDecoder(features, words, form="paper" if kind == "mean-pool-paper" else "factored", **shape)
    )
    return CaptionNetwork(
        encoder,
        decoder,
        beam=int(config["beam"]),
        max_length=int(config["max_length"]),
        length_penalty=float(config["length_penalty"]),
    )


def weights_of(config: Mapping[str, Any]) -> list[PublicWeights]:
    """The public weights that a run started from."""
    return [w for w in (EFFICIENTNET_LITE0,) if w.name in config["weights"]]


def _inputs(
    network: CaptionNetwork,
    config: Mapping[str, Any],
    train: CaptionedClips,
    validation: CaptionedClips,
    args: Namespace,
) -> dict[str, ClipInputs]:
    """Features where the encoder is frozen, pixels where it learns."""
    parts = {"train": train, "val": validation}
    if not config["frozen"]:
        frames = config["learnt_frames"]
        return {name: PixelInputs(_pixels(part), frames if name == "train" else None) for name, part in parts.items()}
    cache = cache_folder() / "features" if args.cache else None
    return {
        name: FeatureInputs(
            clip_features(
                part,
                network.encoder,
                cache=cache,
                views=("plain", "mirrored") if name == "train" and args.augment is not False else ("plain",),
                pool=config["decoder"] != "attention" and not config["places"],
                progress=Progress(f"features of {name}"),
            )
        )
        for name, part in parts.items()
    }


def _pixels(part: CaptionedClips) -> NDArray[np.uint8]:
    """All clips in memory, which must be of one size: (n, T, H, W) gray or (n, T, H, W, 3).

    Raises:
        InputError: clips of several sizes.
    """
    clips = [part.frames(index) for index in range(len(part))]
    shapes = {clip.shape for clip in clips}
    if len(shapes) > 1:
        raise InputError(
            f"an encoder that learns needs clips of one size; found {len(shapes)} sizes, e.g. {sorted(shapes)[:3]}: "
            "resize them, or leave the encoder frozen"
        )
    return np.stack(clips)


def _vocabulary(train: CaptionedClips, rarest: int) -> Vocabulary:
    return build((text for index in range(len(train)) for text in train.captions(index)), rarest)


def _references(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int | str]]:
    """Tokens, but a word that is not known stays itself: two unknown words are not the same word."""
    return [[vocabulary.tokens.get(word, word) for word in tokenise(text)] for text in texts]


def _given(captions: CaptionOptions, args: Namespace) -> CaptionOptions:
    """The recipe's options with what was given on the command line."""
    names = ("label_smoothing", "word_dropout", "scheduled_sampling", "self_critical", "samples")
    return replace(captions, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})


def _config(
    args: Namespace, dataset: Any, recipe: Recipe, options: TrainOptions, learnt: CaptionOptions
) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from; the vocabulary follows."""
    shape = dict(recipe.network)
    for name in ("encoder", "decoder", "cell", "hidden", "embedding", "dropout", "beam", "max_length"):
        if getattr(args, name) is not None:
            shape[name] = getattr(args, name)
    published = shape["encoder"] == "efficientnet-lite0"
    if shape["decoder"] != "attention" and published:
        shape["places"] = 0
    return {
        "task": "caption",
        **shape,
        "frozen": published and not args.fine_tune,
        "learning": asdict(learnt),
        "weights": [EFFICIENTNET_LITE0.name] if published else [],
        "license": "LicenseRef-training-data AND Apache-2.0" if args.data else "Apache-2.0",
        "data": {
            "name": dataset.name,
            "n": len(dataset),
            "skipped": dict(dataset.skipped),
            "notes": list(dataset.notes),
        },
        "seed": options.seed,
        "lr": options.lr,
        "epochs": options.epochs,
        "optimiser": options.optimiser,
    }
