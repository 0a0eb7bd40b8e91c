"""How captioners learn: clips and their captions, the recipes, and the network of a run."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgedl.data.splits import require_training_parts
from edgedl.data.unreadable import Unreadable
from edgedl.nn.efficientnet_lite import SIZE, EfficientNetLite0
from edgedl.tasks.caption.batches import ClipBatches
from edgedl.tasks.caption.cider import CiderD
from edgedl.tasks.caption.config import DECODERS
from edgedl.tasks.caption.data.bouncing_digits import CLIPS, DIGIT_WORDS, FRAMES, HELD_OUT_CLIPS, BouncingDigits
from edgedl.tasks.caption.data.captions import CaptionDataset, open_captions
from edgedl.tasks.caption.data.vocabulary import build, encode, tokenise
from edgedl.tasks.caption.digits import learn_visual_words
from edgedl.tasks.caption.inputs import CaptionedClips, read_clips
from edgedl.tasks.caption.network.attention import ATTENDING
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder
from edgedl.tasks.caption.network.decoder_ensemble import DecoderEnsemble
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.tasks.caption.objective import CaptionLearning, CaptionOptions
from edgedl.tasks.caption.recipes import Recipe, embedded_recipe, photo_recipe
from edgedl.training.arguments import share_of_epochs, train_options
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.options import TrainOptions
from edgedl.training.run import Run
from edgedl.weights.catalogue import EFFICIENTNET_LITE0, PublicWeights
from edgedl.weights.efficientnet_lite0 import load_efficientnet_lite0
from runtime.errors import InputError
from runtime.media.frames import FrameSampling
from runtime.pipelines.caption import CaptionSettings
from runtime.vocabulary import END, Vocabulary

log = logging.getLogger(__name__)

JUDGED_AT_ONCE = 50

_ENCODERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "efficientnet-lite0": lambda config: EfficientNetLite0(int(config.get("size", SIZE))),
    "strided": lambda config: StridedEncoder(len(DIGIT_WORDS)),
}


def train_caption(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a captioner as the command line says.

    Returns:
        CIDEr-D of the best epoch's greedy captions, its number, and the seconds taken.

    Raises:
        InputError: data or options that do not fit.
    """
    _check(args)
    began = time.monotonic()
    recipe = photo_recipe() if args.data else embedded_recipe()
    options = train_options(args, recipe.options)
    learnt = _given(recipe, args, options.epochs)
    run = Run.open(run_path) if args.resume else None
    dataset = _dataset(args, options.seed)
    log.info("%s", dataset.summary())
    known = run.config if run else _config(args, dataset, recipe, options, learnt)
    if (known["data"]["name"], known["data"]["n"]) != (dataset.name, len(dataset)):
        raise InputError(
            f"{run_path} was begun on {known['data']['n']} clips of {known['data']['name']}, not on {len(dataset)} of "
            f"{dataset.name}; resume it with the data that it was begun with"
        )
    if run and known["seed"] != options.seed:
        raise InputError(f"{run_path} was begun with --seed {known['seed']}, not {options.seed}; resume it with that")
    if isinstance(dataset, CaptionDataset):
        require_training_parts(dataset)
        # What training sees is what the bundle will see.
        settings = settings_of(known)
        dataset = dataset.sampled(settings.frames, shorter=settings.shorter)
    train, validation = dataset.split("train"), dataset.split("val")
    unreadable = Unreadable(dataset.name, len(train) + len(validation), args.max_unreadable)
    vocabulary = Vocabulary(tuple(known["vocabulary"])) if run else _vocabulary(train, args.rarest or recipe.rarest)
    config = {**known, "vocabulary": list(vocabulary.words)}
    torch.manual_seed(options.seed)
    network = network_of(config)
    with Run.create(run_path, config).provisional() if run is None else nullcontext(run) as run:
        _prepare_encoder(network, run, train, options.seed)
        network.freeze_encoder(bool(config["frozen"]))
        parts = {"train": train, "val": validation}
        read = read_clips(network, config, parts, unreadable, varied=args.augment is not False, cached=args.cache)
    run = run.amended(**unreadable.in_config(config))
    texts = {name: part.captions() for name, part in read.items()}
    said, held = ([[encode(vocabulary, text) for text in lines] for lines in texts[name]] for name in ("train", "val"))
    batches = partial(ClipBatches, rows=recipe.rows, max_length=recipe.learnt_length, epochs=options.epochs)
    learning = CaptionLearning(
        learnt,
        epochs=options.epochs,
        max_length=int(config["max_length"]),
        judge=CiderD([_references(vocabulary, lines) for lines in texts["val"]]),
        reward=CiderD([[[*tokens, END] for tokens in lines] for lines in said]) if learnt.self_critical else None,
    )
    result = fit(
        TaskModule(network, learning),
        batches(read["train"].inputs, said, learnt=_learnt(train), batch_size=options.batch_size, seed=options.seed),
        batches(read["val"].inputs, held, batch_size=JUDGED_AT_ONCE, train=False),
        run,
        options,
    )
    return {
        "metric": result.metric,
        "best": result.best,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "seconds": round(time.monotonic() - began, 1),
        "words": len(vocabulary) - 2,
        "unreadable": unreadable.to_json(),
    }


def network_of(config: Mapping[str, Any]) -> CaptionNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: a network that this version does not have.
    """
    if config["encoder"] not in _ENCODERS:
        raise InputError(f"unknown encoder {config['encoder']!r}; there is {', '.join(_ENCODERS)}")
    encoder = _ENCODERS[config["encoder"]](config)
    features, words = int(encoder.features), len(config["vocabulary"])  # type: ignore[arg-type]  # a plain int attribute
    shape = {name: config[name] for name in ("embedding", "hidden", "spread", "cell", "dropout", "places")}
    shape["memory_dropout"] = config.get("memory_dropout", 0.0)  # runs from before 2026-11-28 have none
    kind = config["decoder"]
    if kind not in DECODERS:
        raise InputError(f"unknown decoder {kind!r}; there is {', '.join(DECODERS)}")
    decoder: Decoder = (
        ATTENDING[kind](features, words, pooled=bool(config["pooled"]), **shape)
        if kind in ATTENDING
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


def settings_of(config: Mapping[str, Any]) -> CaptionSettings:
    """What a run's bundle fixes outside its graph: which frames, and how large they are kept."""
    return CaptionSettings(FrameSampling.from_json(config["frames"]), int(config["shorter"]))


def captioner_of(run: Run, *others: Run) -> tuple[CaptionNetwork, Vocabulary, CaptionSettings]:
    """The best network of a run, in evaluation mode, with its words and the settings of its bundle.

    Args:
        run: whose encoder, search and settings are taken.
        others: runs with the same encoder and words; their decoders and the run's choose each word together.

    Raises:
        InputError: no epoch has ended yet, a network that this version does not have, or runs that do not go together.
    """
    networks = []
    for each in (run, *others):
        network = network_of(each.config)
        network.load_state_dict(each.best_weights())
        networks.append(network.eval())
        _check_company(run, networks[0], each, network)
    first = networks[0]
    if others:
        first.decoder = DecoderEnsemble([network.decoder for network in networks])
    return first.eval(), Vocabulary(tuple(run.config["vocabulary"])), settings_of(run.config)


def _check_company(run: Run, network: CaptionNetwork, other: Run, candidate: CaptionNetwork) -> None:
    """Whether two captioners can speak together.

    Raises:
        InputError: they see or speak otherwise.
    """
    for key, meaning in {"vocabulary": "words", "frames": "frames", "shorter": "size of frames"}.items():
        if run.config[key] != other.config[key]:
            raise InputError(
                f"{other.path} was trained with other {meaning} than {run.path}; they cannot speak together"
            )
    ours, theirs = network.encoder.state_dict(), candidate.encoder.state_dict()
    same = network.size == candidate.size and ours.keys() == theirs.keys()
    if not same or not all(torch.equal(weight, theirs[name]) for name, weight in ours.items()):
        raise InputError(
            f"{other.path} has another encoder than {run.path}; captioners that speak together look through one encoder"
        )


def _check(args: Namespace) -> None:
    """What argparse cannot see.

    Raises:
        InputError: an option is out of range, or belongs to other data.
    """
    if args.format and not args.data:
        raise InputError("--format says how --data is to be read; there is no --data")
    if args.fine_tune and not args.data:
        raise InputError("--fine-tune lets the published encoder learn; it needs --data")
    if not args.data and (args.frames is not None or args.every is not None):
        raise InputError(
            f"the embedded clips are {FRAMES} frames, all of which are looked at; --frames and --every need --data"
        )
    if args.data and args.clips is not None:
        raise InputError("--clips counts embedded clips; it does not go together with --data")
    for name in ("hidden", "embedding", "beam", "max_length", "rarest"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if args.frames is not None and args.every is not None:
        raise InputError("--frames spreads so many frames, --every takes one in so many; give one of them")
    for name in ("dropout", "memory_dropout"):
        share = getattr(args, name)
        if share is not None and not 0 <= share < 1:
            raise InputError(f"--{name.replace('_', '-')} is a share from 0 to below 1, not {share}")


def _dataset(args: Namespace, seed: int) -> CaptionDataset | BouncingDigits:
    if args.data:
        return open_captions(args.data, args.format)
    return BouncingDigits(seed, CLIPS if args.clips is None else args.clips, HELD_OUT_CLIPS)


def _learnt(train: CaptionedClips) -> list[list[tuple[bool, ...]]] | None:
    """Which words of the captions are to be learnt, where it is not all of them."""
    if not isinstance(train, BouncingDigits):
        return None
    return [[train.learnt(index)] for index in range(len(train))]


def _prepare_encoder(network: CaptionNetwork, run: Run, train: CaptionedClips, seed: int) -> None:
    """Gives the encoder what it knows before the decoder learns: published weights, or words learnt from frames."""
    if run.best.exists():  # resumed
        prefix = "encoder."
        weights = run.best_weights().items()
        network.encoder.load_state_dict({k.removeprefix(prefix): w for k, w in weights if k.startswith(prefix)})
    elif run.config["weights"]:
        network.encoder.load_state_dict(load_efficientnet_lite0().state_dict())
    elif isinstance(network.encoder, StridedEncoder) and isinstance(train, BouncingDigits):
        learn_visual_words(network.encoder, train, seed)


def _vocabulary(train: CaptionedClips, rarest: int) -> Vocabulary:
    return build((text for index in range(len(train)) for text in train.captions(index)), rarest)


def _references(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int | str]]:
    """Tokens, but a word that is not known stays itself: two unknown words are not the same word."""
    return [[vocabulary.tokens.get(word, word) for word in tokenise(text)] for text in texts]


def _given(recipe: Recipe, args: Namespace, epochs: int) -> CaptionOptions:
    """The recipe's options with what was given on the command line."""
    names = tuple(field.name for field in fields(CaptionOptions))
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    given.setdefault("self_critical", share_of_epochs(recipe.captions.self_critical, recipe.options, epochs))
    return replace(recipe.captions, **given)


def _config(
    args: Namespace, dataset: Any, recipe: Recipe, options: TrainOptions, learnt: CaptionOptions
) -> dict[str, Any]:
    """Everything needed to build the network again and to say where it came from; the vocabulary follows."""
    shape = dict(recipe.network)
    for name in ("decoder", "cell", "hidden", "embedding", "dropout", "memory_dropout", "beam", "max_length"):
        if getattr(args, name) is not None:
            shape[name] = getattr(args, name)
    if args.frames is not None:
        shape["frames"] = FrameSampling.even(args.frames).to_json()
    if args.every is not None:
        shape["frames"] = FrameSampling.every(args.every).to_json()
    published = shape["encoder"] == "efficientnet-lite0"
    return {
        "task": "caption",
        **shape,
        "places": recipe.places.get(shape["decoder"], 0),
        "frozen": not args.fine_tune,
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
