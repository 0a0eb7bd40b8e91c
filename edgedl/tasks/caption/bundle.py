"""How captioners are deployed: encoder, decoder and search as one graph through the gate, into one bundle."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgedl.data import synthetic_faces
from edgedl.data.portrait import portrait
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.weights.catalogue import PublicWeights
from exporters.errors import GuardError
from exporters.export import assemble, export_model
from exporters.reference import one_thread
from exporters.spec import Case, Input, Output
from runtime.bundle import Bundle
from runtime.manifest import DimensionSpec
from runtime.pipelines.caption import MODEL, CaptionSettings
from runtime.vocabulary import Vocabulary

Pixels = NDArray[np.uint8]

CLIP_INPUTS = (
    Input("clips", "uint8", ("B", "T", "H", "W", 3), layout="NTHWC", meaning="frames of each clip, RGB"),
    Input("counts", "int64", ("B",), meaning="how many frames of each clip count, from 1; the rest is padding"),
)

DECIDED = 600.0
"""A clip may be recorded if its search is decided by so many times the float32 noise of its scores. The gate allows a
score at most 300 times the noise (`exporters.parity`), and two scores of which each moves by less than half of their
distance keep their order: so every graph within the tolerance gives the very same tokens."""

UNTRAINED_DECIDED = 4.0
"""The same where nobody asks for more than that float32 and float64 agree."""

ENCODED_AT_ONCE = 4
"""Pictures that are encoded at a time while clips are judged: one takes 70 MB in float64 at 352 pixels."""

REMEMBERED_AT_ONCE = 60
"""Frames of the clips that are searched at a time while they are judged, or one clip: the features of twenty clips of
thirty frames take over a gigabyte."""

LEAST_NOISE = 2.0**-23
"""One unit in the last place of a score of 1: what float32 cannot promise, however well it did here."""


def caption_outputs(network: CaptionNetwork) -> tuple[Output, ...]:
    """The answers of a caption graph: K sentences of at most L tokens, the best first."""
    beam, length = network.beam, network.max_length
    return (
        Output("tokens", "int64", ("B", beam, length), decision="exact",
               meaning="lines of the vocabulary, from 0; 0 after the last word"),
        Output("lengths", "int64", ("B", beam), unit="word", decision="exact"),
        Output("scores", "float32", ("B", beam), unit="nat",
               meaning=f"log-probability over the power {network.length_penalty:g} of the number of tokens, falling"),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Slot:
    """A case to be filled: clips of so many frames each, taken from one roll of pictures of one size."""

    name: str
    roll: str
    counts: tuple[int, ...]
    optional: bool = False


SLOTS = (
    _Slot("photo", "small", (1,)),
    _Slot("two frames", "small", (2,)),
    _Slot("seven frames", "small", (7,)),
    _Slot("thirty frames", "small", (30,)),
    _Slot("three clips", "small", (3, 1, 2)),
    _Slot("eight photos", "small", (1,) * 8),
    _Slot("eight clips", "small", (2, 1, 2, 3, 1, 2, 1, 3)),
    _Slot("large", "large", (2,)),
    _Slot("odd size", "odd", (2, 1)),
    # One picture of each kind, which cannot be exchanged for another: left out where the network is undecided.
    _Slot("black", "black", (1,), optional=True),
    _Slot("white", "white", (2,), optional=True),
    _Slot("noise", "noise", (1,), optional=True),
)


def clip_cases(network: CaptionNetwork, *, decided: float = DECIDED, shown: Sequence[Pixels] = ()) -> list[Case]:
    """Clips for the sweep: 1, 2, 7 and 30 frames, batches of 1, 3 and 8, sizes that are not the network's, the edges.

    A public-domain portrait, drawn scenes, noise and what is `shown` only: golden cases travel with the bundle,
    training data must not. Of the many clips that the pictures make, those are taken whose search is clear (`DECIDED`):
    where two sentences are as good as equally likely, float32 decides at random, and a case would tell the machine, not
    the graph.

    Args:
        network: in evaluation mode; float32.
        decided: how many times the noise of the scores the margin of a search has to be.
        shown: clips (T, H, W, 3) like those that the network learnt from. The first one whose search is clear becomes
            the first case, which is the bundle's example (`runtime.example`).

    Raises:
        GuardError: the network is decided about too few clips.
    """
    examples = tuple(_Slot("example", f"shown {n}", (len(clip),), optional=True) for n, clip in enumerate(shown))
    rolls = _rolls(network.size) | {slot.roll: clip for slot, clip in zip(examples, shown, strict=True)}
    margins, noise = _judge(network, rolls, (*examples, *SLOTS))
    cases: list[Case] = []
    for slot in (*examples, *SLOTS):
        if slot in examples and cases:
            continue  # one is enough
        roll = rolls[slot.roll]
        used: set[tuple[int, ...]] = set()
        chosen: list[tuple[int, ...]] = []
        for count in slot.counts:
            clear = (
                clip
                for clip in _candidates(count, len(roll))
                if clip not in used and margins[slot.roll, clip] >= decided * noise
            )
            clip = next(clear, None)
            if clip is not None:
                used.add(clip)
                chosen.append(clip)
        if len(chosen) == len(slot.counts):
            cases.append(Case(slot.name, _batch(roll, chosen)))
        elif not slot.optional:
            raise GuardError(
                f"case {slot.name!r} needs {len(slot.counts)} clips whose captions are clear by {decided * noise:.1e}, "
                f"found are {len(chosen)}. Of the others the best sentences score too much alike for other arithmetic "
                "to keep them apart: train the network longer, or export it as untrained"
            )
    return cases


def _rolls(size: int) -> dict[str, Pixels]:
    """Pictures (N, H, W, 3) by name, each roll of one size.

    Sides of all but one are multiples of a sixteenth of the network's: float32 holds their ratio exactly, so that the
    resize adds no noise of its own, behind which the faintest fault could hide.
    """
    unit = max(1, size // 16)
    chance = np.random.default_rng(0)
    return {
        "small": _album(9 * unit, 8 * unit, 10),
        "large": _album(20 * unit, 18 * unit, 2),
        "odd": _album(57, 43, 3),
        "black": np.zeros((1, 2 * unit, 3 * unit, 3), np.uint8),
        "white": np.full((1, 15 * unit, 13 * unit, 3), 255, np.uint8),
        "noise": chance.integers(0, 256, (4, 5 * unit, 7 * unit, 3), dtype=np.uint8),
    }


def _album(height: int, width: int, count: int) -> Pixels:
    """``2 * count`` pictures: views of the portrait and of drawn people, each with its mirror image."""
    hopper = portrait()
    pictures = []
    for number in range(count):
        if number % 2:
            picture = synthetic_faces.scene(seed=number, faces=1 + number % 4, size=256)[0]
        else:
            # From the whole portrait to the face alone, a little to one side of it.
            part = 600 - 50 * number
            top, left = 10 * number, max(0, min(512 - part, 15 * number))
            picture = hopper[top : top + part, left : left + part]
        rows = np.linspace(0, picture.shape[0] - 1, height).round().astype(int)
        columns = np.linspace(0, picture.shape[1] - 1, width).round().astype(int)
        seen = picture[rows][:, columns]
        pictures += [seen, seen[:, ::-1]]
    return np.ascontiguousarray(pictures)


def _candidates(count: int, pictures: int) -> list[tuple[int, ...]]:
    """Clips of ``count`` frames out of a roll, as picture numbers: one from each picture on, or the whole roll."""
    if count == pictures:
        return [tuple(range(pictures))]
    return [tuple((first + frame) % pictures for frame in range(count)) for first in range(pictures)]


def _batch(roll: Pixels, clips: Sequence[tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """The inputs of a case; what is too short is filled up with pictures that must not count."""
    longest = max(map(len, clips))
    filled = [[*clip, *(range(longest - len(clip)))] for clip in clips]
    return {"clips": roll[np.array(filled)], "counts": np.array([len(clip) for clip in clips], np.int64)}


@one_thread()
def _judge(
    network: CaptionNetwork, rolls: Mapping[str, Pixels], slots: Sequence[_Slot]
) -> tuple[dict[tuple[str, tuple[int, ...]], float], float]:
    """The margin of every clip that a slot may take, and the largest float32 noise of their scores.

    Each picture is encoded once, whatever the number of clips that show it.
    """
    double = copy.deepcopy(network).double()
    margins: dict[tuple[str, tuple[int, ...]], float] = {}
    noise = LEAST_NOISE
    wanted = {(slot.roll, count) for slot in slots for count in slot.counts}
    with torch.no_grad():
        for roll, pictures in rolls.items():
            frames = torch.split(torch.from_numpy(pictures), ENCODED_AT_ONCE)
            features = [(part, torch.cat([part.frame_features(some) for some in frames])) for part in (double, network)]
            for count in sorted(count for name, count in wanted if name == roll):
                candidates, few = _candidates(count, len(pictures)), max(1, REMEMBERED_AT_ONCE // count)
                for clips in (candidates[first : first + few] for first in range(0, len(candidates), few)):
                    counts = torch.full((len(clips),), count)
                    truth, single = (
                        part.decoder.remember(encoded[torch.tensor(clips)], counts) for part, encoded in features
                    )
                    exact, rounded = double.search(truth), network.search(single)
                    same = (exact[0] == rounded[0]).flatten(1).all(dim=1)
                    off = torch.where(exact[2].isfinite(), (exact[2] - rounded[2]).abs(), 0)
                    noise = max(noise, float((off * same.unsqueeze(1)).max()))
                    found = torch.where(same, double.margins(truth), 0)
                    margins |= {(roll, clip): float(margin) for clip, margin in zip(clips, found, strict=True)}
    return margins, noise


def caption_bundle(
    path: str | PathLike[str],
    network: CaptionNetwork,
    vocabulary: Vocabulary,
    *,
    settings: CaptionSettings,
    name: str,
    version: str,
    description: str,
    license: str,  # noqa: A002 - the manifest's word
    weights: Sequence[PublicWeights],
    provenance: Mapping[str, Any],
    untrained: bool = False,
    shown: Sequence[Pixels] = (),
) -> Bundle:
    """Takes a captioner through the gate and writes it as a bundle.

    Args:
        path: of the bundle.
        network: in evaluation mode.
        vocabulary: the words of its tokens.
        settings: which frames of a clip it gets, and how large they are kept.
        name: of the bundle.
        version: of the bundle.
        description: one sentence.
        license: SPDX expression of the whole.
        weights: public weights that it came from.
        provenance: seed, data and what else is known of the training.
        untrained: accept a gate that cannot tell a wrong network from a right one, and hardly decided searches.
        shown: clips of which one is recorded as the bundle's example, see `clip_cases`.

    Raises:
        GuardError: the vocabulary has not as many words as the network, or see `clip_cases`.
        ExportError: the gate said no; nothing is left behind.
    """
    words = network.decoder.words
    if len(vocabulary) != words:
        raise GuardError(
            f"the vocabulary has {len(vocabulary)} words and the network {words}; it must be the one of its training"
        )
    cases = clip_cases(network, decided=UNTRAINED_DECIDED if untrained else DECIDED, shown=shown)
    model = export_model(
        network,
        inputs=CLIP_INPUTS,
        outputs=caption_outputs(network),
        cases=cases,
        golden=len(cases),
        dimensions={"T": DimensionSpec(min=1)},  # a clip of no frames has no caption, whatever the search makes of it
        untrained=untrained,
    )
    files = {"vocabulary": ("vocabulary.txt", vocabulary.to_bytes())}
    if weights:
        files["notice"] = ("NOTICE", ("\n".join(w.notice for w in weights) + "\n").encode())
    listed = [{"name": w.name, "sha256": w.member_sha256, "license": w.license} for w in weights]
    return assemble(
        path,
        name=name,
        version=version,
        task="caption",
        description=description,
        license=license,
        models={MODEL: model},
        pipeline=settings.to_json(),
        files=files,
        provenance={**provenance, "weights": listed},
    )
