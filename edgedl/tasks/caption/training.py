"""How captioners learn: clips and their captions, the recipes, and the network of a run."""

from __future__ import annotations

import io
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgedl.data.splits import require_training_parts
from edgedl.data.unreadable import Unreadable
from edgedl.nn.efficientnet_lite import SCALES, EfficientNetLite, EfficientNetTop, EfficientNetTrunk, Scale
from edgedl.tasks.caption.batches import ClipBatches
from edgedl.tasks.caption.cider import CiderD
from edgedl.tasks.caption.config import CaptionConfig, check_data_options
from edgedl.tasks.caption.data.bouncing_digits import CLIPS, DIGIT_WORDS, HELD_OUT_CLIPS, BouncingDigits
from edgedl.tasks.caption.data.captions import CaptionDataset, open_captions
from edgedl.tasks.caption.data.vocabulary import build, encode, tokenise
from edgedl.tasks.caption.digits import learn_visual_words
from edgedl.tasks.caption.inputs import CaptionedClips, divided, read_clips
from edgedl.tasks.caption.network.attention import ATTENDING, AttendingDecoder
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder
from edgedl.tasks.caption.network.decoder_ensemble import DecoderEnsemble
from edgedl.tasks.caption.network.strided import StridedEncoder
from edgedl.tasks.caption.objective import CaptionLearning
from edgedl.tasks.caption.recipes import embedded_recipe, photo_recipe
from edgedl.tasks.run_config import described, trained_with
from edgedl.training.arguments import train_options
from edgedl.training.fit import fit
from edgedl.training.lightning_module import TaskModule
from edgedl.training.processes import of_first
from edgedl.training.run import Run
from edgedl.weights.catalogue import IMAGE_ENCODERS, PublicWeights
from edgedl.weights.efficientnet_lite import load_efficientnet_lite
from runtime.errors import InputError
from runtime.media.frames import FrameSampling
from runtime.pipelines.caption import CaptionSettings
from runtime.vocabulary import END, UNKNOWN, Vocabulary

log = logging.getLogger(__name__)

JUDGED_AT_ONCE = 50


def _published(scale: Scale, config: CaptionConfig) -> nn.Module:
    return EfficientNetLite(scale, config.size)


_ENCODERS: Mapping[str, Callable[[CaptionConfig], nn.Module]] = {
    **{name: partial(_published, scale) for name, scale in SCALES.items()},
    "strided": lambda config: StridedEncoder(len(DIGIT_WORDS)),
}


def train_caption(args: Namespace, run_path: Path) -> dict[str, Any]:
    """Trains a captioner as the command line says.

    Returns:
        CIDEr-D of the best epoch's greedy captions, its number, and the seconds taken.

    Raises:
        InputError: data or options that do not fit.
    """
    check_data_options(args)
    began = time.monotonic()
    run = Run.open(run_path) if args.resume else None
    begun = CaptionConfig.of(run) if run else None
    recipe = photo_recipe() if args.data else embedded_recipe()
    options = train_options(args, begun.begun_with(recipe.options) if begun else recipe.options)
    config = begun or recipe.asked(args, options)
    config.check_resumed(args, run_path)
    dataset = _dataset(args, options.seed)
    log.info("%s", dataset.summary())
    if begun:
        begun.check_data(dataset, "clips", run_path)
    if isinstance(dataset, CaptionDataset):
        require_training_parts(dataset)
        # What training sees is what the bundle will see.
        settings = settings_of(config)
        dataset = dataset.sampled(settings.frames, shorter=settings.shorter)
    train = dataset.split("train")
    parts = {"train": train} if config.set_apart else {"train": train, "val": dataset.split("val")}
    unreadable = Unreadable(dataset.name, sum(map(len, parts.values())), args.max_unreadable)
    if not begun:
        words = _vocabulary(train, args.rarest or recipe.rarest).words
        config = replace(config, data=described(dataset), vocabulary=words)
    elif args.rarest and _vocabulary(train, args.rarest).words != begun.vocabulary:
        raise InputError(f"{run_path} was begun with other words; resume it without --rarest")
    vocabulary, learnt = Vocabulary(config.vocabulary), config.learning
    torch.manual_seed(options.seed)
    network = network_of(config)
    with Run.create(run_path, config.to_json()).provisional() if run is None else nullcontext(run) as run:
        _prepare_encoder(network, run, config, train)
        network.freeze_encoder(config.frozen)
        read = read_clips(network, config, parts, unreadable, varied=args.augment is not False, cached=args.cache)
        if config.set_apart:
            read = divided(read["train"], config.set_apart, config.seed)
    run = run.amended(**trained_with(options), **unreadable.in_config(run.config))
    texts = {name: part.captions() for name, part in read.items()}
    said, held = ([[encode(vocabulary, text) for text in lines] for lines in texts[name]] for name in ("train", "val"))
    batches = partial(ClipBatches, rows=recipe.rows, max_length=recipe.learnt_length, epochs=options.epochs)
    learning = CaptionLearning(
        learnt,
        epochs=options.epochs,
        max_length=config.max_length,
        judge=CiderD([_references(vocabulary, lines) for lines in texts["val"]]),
        reward=CiderD([[[*tokens, END] for tokens in lines] for lines in said]) if learnt.self_critical else None,
    )
    result = fit(
        TaskModule(network, learning, head=("decoder.top",) if config.top else (), rests=config.top),
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


def network_of(config: CaptionConfig) -> CaptionNetwork:
    """The network that a run's configuration describes, with weights from chance.

    Raises:
        InputError: an encoder that this version does not have.
    """
    if config.encoder not in _ENCODERS:
        raise InputError(f"unknown encoder {config.encoder!r}; there is {', '.join(_ENCODERS)}")
    encoder = _ENCODERS[config.encoder](config)
    top = None
    if config.top:
        encoder, top = _divided(encoder)
    features, words = int(encoder.features), len(config.vocabulary)  # type: ignore[arg-type]  # a plain int attribute
    names = ("embedding", "hidden", "spread", "cell", "dropout", "memory_dropout", "places")
    shape = {name: getattr(config, name) for name in names}
    kind = config.decoder
    decoder: Decoder = (
        ATTENDING[kind](
            features,
            words,
            pooled=config.pooled,
            top=top,
            concepts=min(config.concepts, words - (UNKNOWN + 1)),
            **shape,
        )
        if kind in ATTENDING
        else MeanPoolDecoder(features, words, form="paper" if kind == "mean-pool-paper" else "factored", **shape)
    )
    return CaptionNetwork(
        encoder,
        decoder,
        beam=config.beam,
        max_length=config.max_length,
        length_penalty=config.length_penalty,
    )


def _divided(encoder: nn.Module) -> tuple[nn.Module, nn.Module]:
    """What is computed once of a published encoder, and what a decoder has for itself."""
    assert isinstance(encoder, EfficientNetLite)  # noqa: S101 - the options allow a top with --data only, whose encoders these are
    return EfficientNetTrunk(encoder), EfficientNetTop(encoder)


def trained_network(run: Run) -> CaptionNetwork:
    """The network of a run with the weights that were kept, in evaluation mode.

    Raises:
        InputError: the run is none of a captioner, or none of its epochs has ended.
    """
    network = network_of(CaptionConfig.of(run))
    network.load_state_dict(run.best_weights())
    return network.eval()


def weights_of(config: CaptionConfig) -> list[PublicWeights]:
    """The public weights that a run started from."""
    return [w for w in IMAGE_ENCODERS.values() if w.name in config.weights]


def settings_of(config: CaptionConfig) -> CaptionSettings:
    """What a run's bundle fixes outside its graph: which frames, and how large they are kept."""
    return CaptionSettings(FrameSampling.from_json(config.frames), config.shorter)


def captioner_of(run: Run, *others: Run) -> tuple[CaptionNetwork, Vocabulary, CaptionSettings]:
    """The best network of a run, in evaluation mode, with its words and the settings of its bundle.

    Args:
        run: whose encoder, search and settings are taken.
        others: runs with the same encoder and words; their decoders and the run's choose each word together.

    Raises:
        InputError: no epoch has ended yet, a network that this version does not have, or runs that do not go together.
    """
    networks = [trained_network(each) for each in (run, *others)]
    for other, network in zip(others, networks[1:], strict=True):
        _check_company(run, networks[0], other, network)
    first = networks[0]
    if others:
        first.decoder = DecoderEnsemble([network.decoder for network in networks])
    config = CaptionConfig.of(run)
    return first.eval(), Vocabulary(config.vocabulary), settings_of(config)


def _check_company(run: Run, network: CaptionNetwork, other: Run, candidate: CaptionNetwork) -> None:
    """Whether two captioners can speak together.

    Raises:
        InputError: they see or speak otherwise.
    """
    ours, theirs = CaptionConfig.of(run), CaptionConfig.of(other)
    for key, meaning in {"vocabulary": "words", "frames": "frames", "shorter": "size of frames"}.items():
        if getattr(ours, key) != getattr(theirs, key):
            raise InputError(
                f"{other.path} was trained with other {meaning} than {run.path}; they cannot speak together"
            )
    mine, its = network.encoder.state_dict(), candidate.encoder.state_dict()
    same = network.size == candidate.size and mine.keys() == its.keys()
    if not same or not all(torch.equal(weight, its[name]) for name, weight in mine.items()):
        raise InputError(
            f"{other.path} has another encoder than {run.path}; captioners that speak together look through one encoder"
        )


def _dataset(args: Namespace, seed: int) -> CaptionDataset | BouncingDigits:
    if args.data:
        return open_captions(args.data, args.format)
    return BouncingDigits(seed, CLIPS if args.clips is None else args.clips, HELD_OUT_CLIPS)


def _learnt(train: CaptionedClips) -> list[list[tuple[bool, ...]]] | None:
    """Which words of the captions are to be learnt, where it is not all of them."""
    if not isinstance(train, BouncingDigits):
        return None
    return [[train.learnt(index)] for index in range(len(train))]


def _prepare_encoder(network: CaptionNetwork, run: Run, config: CaptionConfig, train: CaptionedClips) -> None:
    """Gives the encoder what it knows before the decoder learns: published weights, or words learnt from frames."""
    if run.best.exists():  # resumed
        prefix = "encoder."
        weights = run.best_weights().items()
        network.encoder.load_state_dict({k.removeprefix(prefix): w for k, w in weights if k.startswith(prefix)})
    elif config.weights:
        published: nn.Module = load_efficientnet_lite(SCALES[config.encoder])
        if isinstance(network.decoder, AttendingDecoder) and network.decoder.top is not None:
            published, top = _divided(published)
            network.decoder.top.load_state_dict(top.state_dict())
        network.encoder.load_state_dict(published.state_dict())
    elif isinstance(network.encoder, StridedEncoder) and isinstance(train, BouncingDigits):
        learnt = of_first("visual words", partial(_visual_words, network.encoder, train, config.seed))
        network.encoder.load_state_dict(torch.load(io.BytesIO(learnt), weights_only=True))
        network.encoder.eval()


def _visual_words(encoder: StridedEncoder, train: BouncingDigits, seed: int) -> bytes:
    """The weights of an encoder that has learnt them."""
    learn_visual_words(encoder, train, seed)
    file = io.BytesIO()
    torch.save(encoder.state_dict(), file)
    return file.getvalue()


def _vocabulary(train: CaptionedClips, rarest: int) -> Vocabulary:
    return build((text for index in range(len(train)) for text in train.captions(index)), rarest)


def _references(vocabulary: Vocabulary, texts: Sequence[str]) -> list[list[int | str]]:
    """Tokens, but a word that is not known stays itself: two unknown words are not the same word."""
    return [[vocabulary.tokens.get(word, word) for word in tokenise(text)] for text in texts]
