"""How captioners are trained by default: one recipe for photos and videos, one for the embedded digits."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgedl.tasks.caption.config import LOOKING, PHOTO_SIZES, CaptionConfig, CaptionOptions, given_frames
from edgedl.tasks.caption.data.bouncing_digits import DIGIT_WORDS, FRAMES, SIZE
from edgedl.tasks.run_config import given, trained_with
from edgedl.training.arguments import share_of_epochs
from edgedl.training.options import TrainOptions
from edgedl.weights.catalogue import IMAGE_ENCODERS


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the defaults of one kind of data were measured.

    Attributes:
        options: of the training.
        captions: of what is learnt.
        network: fields of the run's configuration, see `CaptionConfig`.
        places: of the encoder's grid that the decoders named here are to know apart.
        rows: captions of a clip in a batch.
        rarest: words that occur less often are unknown ones.
        learnt_length: words of a training caption; what is longer is cut, because a batch costs as much as its longest.
    """

    options: TrainOptions
    captions: CaptionOptions
    network: Mapping[str, Any]
    places: Mapping[str, int]
    rows: int
    rarest: int
    learnt_length: int

    def asked(self, args: Namespace, options: TrainOptions) -> CaptionConfig:
        """The configuration with what the command line asks for; ``data`` and ``vocabulary`` are still empty.

        Raises:
            InputError: an option is out of range.
        """
        chosen = {**self.network, **given(args, CaptionConfig), **given_frames(args)}
        encoder = chosen["encoder"]
        if encoder in PHOTO_SIZES:
            chosen.setdefault("size", PHOTO_SIZES[encoder])
        if args.fine_tune or chosen["decoder"] not in LOOKING:
            chosen["top"] = False
        if chosen["decoder"] not in LOOKING:
            chosen["concepts"] = 0
        shares = {
            name: share_of_epochs(getattr(self.captions, name), self.options, options.epochs)
            for name in ("self_critical", "top_from")
        }
        return CaptionConfig(
            **chosen,
            places=self.places.get(chosen["decoder"], 0),
            frozen=not args.fine_tune,
            learning=replace(self.captions, **shares | given(args, CaptionOptions)),
            vocabulary=(),
            data={},
            license="LicenseRef-training-data AND Apache-2.0" if args.data else "Apache-2.0",
            weights=(IMAGE_ENCODERS[encoder].name,) if encoder in IMAGE_ENCODERS else (),
            **trained_with(options),
        )


def recipes() -> dict[str, Recipe]:
    """The recipes by what the help calls them, the one of a training without options first."""
    return {"": embedded_recipe(), "with --data": photo_recipe()}


def photo_recipe() -> Recipe:
    """From the features of the published encoder, on some thousand photos or videos with five captions each.

    On Flickr8k it took 60 minutes of processor time, on an AMD processor with AVX-512: BLEU-4 .258 and CIDEr-D .679 on
    the development photos, which chose nothing but whether the last epoch is kept
    (docs/decisions/0074-concepts-and-views.md).
    """
    return Recipe(
        options=TrainOptions(
            epochs=37,
            batch_size=20,
            optimiser="adamw",
            lr=2e-3,
            head_lr=0.1,  # of the encoder's top
            betas=(0.9, 0.98),
            weight_decay=0.02,
            schedule="cosine",
            warmup=0.5,
            settle=26,
            settle_lr=0.25,
            keep="last",
            ema=0.998,
            clip=5.0,
            bf16=None,
        ),
        captions=CaptionOptions(
            label_smoothing=0.1, top_from=3, self_critical=26, self_critical_dropout=0.15, concept_weight=0.04
        ),
        network={
            "encoder": "efficientnet-lite2",
            "decoder": "spatial",
            "pooled": False,
            "cell": "lstm",
            "hidden": 384,
            "embedding": 256,
            "spread": 0.08,
            "dropout": 0.4,
            "memory_dropout": 0.1,
            "beam": 3,
            "max_length": 20,
            "length_penalty": 0.7,
            "frames": {"kind": "even", "n": 8},
            "shorter": 448,
            "drawn": 4,
            "views": 6,
            "window": 7,
            "concepts": 500,
            "top": True,
        },
        places={},
        rows=5,
        rarest=5,
        learnt_length=16,
    )


def embedded_recipe() -> Recipe:
    """On the bouncing digits; the encoder has learnt its words from single frames by then."""
    words = len(DIGIT_WORDS)
    return Recipe(
        options=TrainOptions(
            epochs=8,
            batch_size=32,
            optimiser="adamw",
            lr=5e-3,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            schedule="one-cycle",
            ema=0.98,
            clip=1.0,
            # So small a network gains nothing from a second thread, and on a busy machine loses a lot.
            threads=1,
        ),
        captions=CaptionOptions(label_smoothing=0.0, concept_weight=0.04),
        network={
            "encoder": "strided",
            "decoder": "attention",
            "pooled": True,
            "cell": "gru",
            "hidden": 96,
            "embedding": 48,
            "spread": 0.5,
            "dropout": 0.0,
            "memory_dropout": 0.0,
            "beam": 3,
            "max_length": 16,
            "length_penalty": 0.7,
            "frames": {"kind": "even", "n": FRAMES},
            "shorter": 2 * SIZE,
            "views": 1,
            "concepts": 0,
            "top": False,
        },
        places={"mean-pool": words, "mean-pool-paper": words},
        rows=1,
        rarest=1,
        learnt_length=16,
    )
