"""One clip of 10 frames 224×224 to captions (beam 3), against torch eager and against a loop of single steps.

    python benchmarks/caption_clip.py [--run RUN] [--decoder spatial|attention|mean-pool] [--threads 1] [--write]

``clip``: pixels to sentences, by the exported graph through the pipeline's engine and by the same network in torch
eager. ``decoding``: from the encoded clip to tokens, at batch 1 and 8, by the search inside the graph and by a Python
loop that calls ``session.run`` of the single step, exported as the decoder has it, and does the rule of
`exporters.decoding` in numpy. Tokens must be equal everywhere. Both sides of a comparison take turns in one process; a
ratio is that of the medians, and above 1 the graph is faster. With one thread the ratio of processor time is given too,
which a busy machine spoils less.

Without --run the encoder has its published weights and the decoder random ones that never end a sentence, so every
search goes on to its 20th word. A trained run ends when its sentences do.
"""

# ruff: noqa: E402 - the variables below have to be set before numpy and the runtimes are loaded

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is loaded; torch and ONNX Runtime are given --threads below

import numpy as np
import torch
from torch import nn

from edgedl.data import synthetic_faces
from edgedl.nn.efficientnet_lite import EfficientNetLite
from edgedl.tasks.caption.network.attention import ATTENDING
from edgedl.tasks.caption.network.caption_network import CaptionNetwork
from edgedl.tasks.caption.network.captioning import Decoder, MeanPoolDecoder
from exporters.convert import convert, rename_axes
from exporters.optimize import flush_graph, flush_module
from exporters.spec import Input, Output, Signature
from runtime.engine import Engine
from runtime.vocabulary import END, UNKNOWN

RESULT = Path(__file__).parent / "results" / "caption_clip.json"
FRAMES, SIDE = 10, 224
BATCHES = (1, 8)
LEAST_CLIP, LEAST_DECODING = 3.0, 1.1
WORDS, HIDDEN, EMBEDDING, BEAM, MAX_LENGTH = 2500, 384, 256, 3, 20
EMITTED_NEVER = -1e4

Arrays = tuple[np.ndarray, ...]


def random_network(decoder: str) -> CaptionNetwork:
    """The network of the photo recipe: published encoder, random decoder."""
    from edgedl.weights.efficientnet_lite import load_efficientnet_lite

    torch.manual_seed(0)
    encoder = EfficientNetLite()
    encoder.load_state_dict(load_efficientnet_lite().state_dict())
    shape = {"embedding": EMBEDDING, "hidden": HIDDEN, "cell": "lstm"}
    made: Decoder = (
        ATTENDING[decoder](encoder.features, WORDS, places=49, **shape)
        if decoder in ATTENDING
        else MeanPoolDecoder(encoder.features, WORDS, **shape)
    )
    with torch.no_grad():
        made.embedding.weight *= 10  # else all words are about as likely, and rounding chooses
        made.word_bias[END] = EMITTED_NEVER
    return CaptionNetwork(encoder, made, beam=BEAM, max_length=MAX_LENGTH)


def trained_network(run_path: str) -> CaptionNetwork:
    """The network of a run, with its best weights and the beam and length of this comparison."""
    from edgedl.tasks.caption.config import CaptionConfig
    from edgedl.tasks.caption.training import network_of
    from edgedl.training.run import Run

    run = Run.open(run_path)
    network = network_of(replace(CaptionConfig.of(run), beam=BEAM, max_length=MAX_LENGTH))
    network.load_state_dict(run.best_weights())
    return network


def clips_of(count: int) -> np.ndarray:
    """Drawn scenes that glide by: (count, FRAMES, SIDE, SIDE, 3)."""
    clips = []
    for seed in range(count):
        scene = synthetic_faces.scene(seed=seed, faces=1 + seed % 4, size=SIDE + 4 * FRAMES)[0]
        clips.append([scene[4 * i : 4 * i + SIDE, 2 * i : 2 * i + SIDE] for i in range(FRAMES)])
    return np.ascontiguousarray(clips)


class Calling(nn.Module):
    """A part of a network as a module of its own, with as many arguments as the part has."""

    def __init__(self, network: CaptionNetwork, call: Callable[..., tuple[torch.Tensor, ...]], names: list[str]):
        super().__init__()
        self.network = network

        def forward(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return call(*values)

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = inspect.Signature(parameters)
        self.forward = forward
        self.eval()


def graph_of(module: nn.Module, example: dict[str, np.ndarray], inputs: list[Input], outputs: list[Output]) -> bytes:
    """As `exporters.export.export_model` makes it, without the proof."""
    signature = Signature(inputs, outputs)
    model = convert(module, example, signature, 18).model
    flush_graph(model)
    rename_axes(model, signature)
    return model.SerializeToString(deterministic=True)


def search_outputs(network: CaptionNetwork) -> list[Output]:
    beam, length = network.beam, network.max_length
    return [
        Output("tokens", "int64", ("B", beam, length)),
        Output("lengths", "int64", ("B", beam)),
        Output("scores", "float32", ("B", beam)),
    ]


def tensors_of(prefix: str, tensors: tuple[torch.Tensor, ...], named: dict[int, str]) -> list[Input]:
    """Declarations of tensors (B, …); `named` says which other sizes are free."""
    return [
        Input(f"{prefix}{i}", "float32", ("B", *(named.get(size, size) for size in tensor.shape[1:])))
        for i, tensor in enumerate(tensors)
    ]


class StepLoop:
    """The search as a Python loop over the exported single step; the rule of `exporters.decoding` in numpy."""

    def __init__(self, network: CaptionNetwork, memory: tuple[torch.Tensor, ...], free: dict[int, str], threads: int):
        self.beam, self.length = network.beam, network.max_length
        self.penalties = (np.arange(1, self.length + 1) ** np.float64(network.length_penalty)).astype(np.float32)
        decoder = network.decoder
        state = decoder.begin(memory, self.beam)
        remembered, carried = tensors_of("memory", memory, free), tensors_of("state", state, {})
        words = Input("words", "int64", ("B", self.beam))
        inputs = [words, *carried, *remembered]

        def step(tokens: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
            logits, after = decoder.step(tokens, rest[: len(state)], rest[len(state) :])
            return logits, *after

        outputs = [
            Output("logits", "float32", ("B", self.beam, decoder.words)),
            *(Output(f"next{i}", "float32", tensor.shape) for i, tensor in enumerate(carried)),
        ]
        example = {"words": np.full((len(memory[0]), self.beam), END, np.int64)}
        example |= {t.name: value.numpy() for t, value in zip(inputs[1:], (*state, *memory), strict=True)}
        module = Calling(network, step, [tensor.name for tensor in inputs])
        self.engine = Engine(graph_of(module, example, inputs, outputs), threads=threads, name="step")
        self.session = self.engine.session
        self.state_names = [tensor.name for tensor in carried]
        self.memory_names = [tensor.name for tensor in remembered]
        self.output_names = [output.name for output in outputs]
        self.hidden = [tensor.shape[-1] for tensor in carried]

    def __call__(self, memory: Arrays) -> Arrays:
        """(B, …) each -> tokens (B, K, L), lengths (B, K), scores (B, K)."""
        batch, beam, lowest = len(memory[0]), self.beam, np.float32(-np.inf)
        tokens = np.full((batch, beam, self.length), END, np.int64)
        sums = np.full((batch, beam), lowest)
        sums[:, 0] = 0
        finished = np.ones((batch, beam), bool)
        finished[:, 0] = False
        last = np.full((batch, beam), END, np.int64)
        state = [np.zeros((batch, beam, width), np.float32) for width in self.hidden]
        feed = dict(zip(self.memory_names, memory, strict=True))
        rows, items = np.arange(batch * beam), np.arange(batch)[:, None]
        for position in range(self.length):
            feed["words"] = last
            feed.update(zip(self.state_names, state, strict=True))
            logits, *state = self.session.run(self.output_names, feed)
            flat = logits.reshape(batch * beam, -1)
            flat[:, UNKNOWN] = lowest
            most = flat.max(axis=1, keepdims=True)
            norm = most + np.log(np.exp(flat - most).sum(axis=1, keepdims=True))
            choices, gains = self._largest(flat, rows)
            gains = (gains - norm).reshape(batch, beam, beam)
            closed = finished[..., None]
            stay = np.array([0] + [lowest] * (beam - 1), np.float32)
            totals = sums[..., None] + np.where(closed, stay, gains)
            choices = np.where(closed, END, choices.reshape(batch, beam, beam)).reshape(batch, -1)
            ranks = np.where(closed, totals, totals / self.penalties[position]).reshape(batch, -1)
            best = np.argsort(-ranks, axis=1, kind="stable")[:, :beam]
            last, kept = choices[items, best], ranks[items, best]
            finished = (last == END) | (kept == lowest)
            sums = np.where(finished, kept, totals.reshape(batch, -1)[items, best])
            source = best // beam
            tokens = tokens[items, source]
            tokens[:, :, position] = last
            if finished.all():
                break
            state = [tensor[items, source] for tensor in state]
        scores = np.where(finished, sums, sums / self.penalties[-1])
        tokens[scores == lowest] = END
        return tokens, (tokens != END).sum(axis=2), scores

    def _largest(self, flat: np.ndarray, rows: np.ndarray) -> Arrays:
        """The beam's largest of each row, falling, the lower index first: a few argmax are the fastest way."""
        chosen, values = [], []
        for _ in range(self.beam):
            index = flat.argmax(axis=1)
            chosen.append(index)
            values.append(flat[rows, index])
            flat[rows, index] = -np.inf
        return np.stack(chosen, axis=1), np.stack(values, axis=1)


def race(ours: Callable[[], object], theirs: Callable[[], object], rounds: int, threads: int) -> dict[str, float]:
    """Both by turns, after one warm-up each."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "ours_cpu": [], "theirs_cpu": []}
    for turn in range(rounds + 1):
        for name, call in (("ours", ours), ("theirs", theirs)):
            begun, begun_cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
                seconds[f"{name}_cpu"].append(time.process_time() - begun_cpu)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    result = {
        "edgedl_ms": round(1e3 * middle["ours"], 2),
        "peer_ms": round(1e3 * middle["theirs"], 2),
        "ratio": round(middle["theirs"] / middle["ours"], 2),
    }
    return result | ({"cpu_ratio": round(middle["theirs_cpu"] / middle["ours_cpu"], 2)} if threads == 1 else {})


def check(same: bool, what: str) -> None:
    if not same:
        sys.exit(f"{what}: the tokens differ, so there is nothing to compare")


def whole_clip(network: CaptionNetwork, rounds: int, threads: int) -> dict:
    """Pixels to tokens."""
    clips = clips_of(2)
    counts = np.full(1, FRAMES, np.int64)
    inputs = [Input("clips", "uint8", ("B", "T", "H", "W", 3)), Input("counts", "int64", ("B",))]
    example = {"clips": np.ascontiguousarray(clips[:, :3, ::2]), "counts": np.full(2, 3, np.int64)}
    engine = Engine(graph_of(network, example, inputs, search_outputs(network)), threads=threads, name="caption")
    one = np.ascontiguousarray(clips[:1])
    given = torch.from_numpy(one), torch.from_numpy(counts)

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return network(*given)[0].numpy()

    found = engine.run({"clips": one, "counts": counts})
    check(np.array_equal(found["tokens"], eager()), "graph and torch")
    timed = race(lambda: engine.run({"clips": one, "counts": counts}), eager, rounds, threads)
    return timed | {"lengths": found["lengths"][0].tolist()}


def decoding(network: CaptionNetwork, rounds: int, threads: int) -> dict[str, dict]:
    """Encoded clips to tokens."""
    with torch.no_grad():
        clips = torch.from_numpy(clips_of(max(BATCHES)))
        features = torch.stack([network.frame_features(clip) for clip in clips])
        memory = network.decoder.remember(features, torch.full((len(clips),), FRAMES))
    places = features.shape[1] * features.shape[2]
    free = {places: "P"} if any(places in tensor.shape[1:] for tensor in memory) else {}
    inputs = tensors_of("memory", memory, free)
    module = Calling(network, lambda *given: network.search(given), [tensor.name for tensor in inputs])
    example = {tensor.name: value.numpy() for tensor, value in zip(inputs, memory, strict=True)}
    engine = Engine(graph_of(module, example, inputs, search_outputs(network)), threads=threads, name="search")
    loop = StepLoop(network, memory, free, threads)
    names = [tensor.name for tensor in inputs]
    rows = {}
    for batch in BATCHES:
        part = tuple(np.ascontiguousarray(tensor[:batch].numpy()) for tensor in memory)
        feed = dict(zip(names, part, strict=True))
        found, stepped = engine.run(feed), loop(part)
        with torch.no_grad():
            eager = network.search(tuple(torch.from_numpy(tensor) for tensor in part))[0].numpy()
        check(np.array_equal(found["tokens"], stepped[0]), f"graph and loop at batch {batch}")
        check(np.array_equal(found["tokens"], eager), f"graph and torch at batch {batch}")
        assert np.allclose(found["scores"], stepped[2], atol=1e-4)
        timed = race(lambda feed=feed: engine.run(feed), lambda part=part: loop(part), rounds, threads)
        rows[str(batch)] = timed | {"longest": int(found["lengths"].max())}
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a trained run; without one, random weights")
    parser.add_argument("--decoder", choices=(*ATTENDING, "mean-pool"), default="spatial", help="without --run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()

    from runtime.machine import describe_machine, installed

    torch.set_num_threads(args.threads)
    network = trained_network(args.run) if args.run else random_network(args.decoder)
    network.eval().requires_grad_(False)
    flush_module(network)  # for both sides: denormal weights would slow torch down several times
    clip = whole_clip(network, args.rounds, args.threads)
    steps = decoding(network, 4 * args.rounds, args.threads)
    result = {
        "network": {
            "weights": "trained" if args.run else "published encoder, random decoder",
            "decoder": type(network.decoder).__name__,
            "hidden": network.decoder.hidden,
            "words": network.decoder.words,
            "beam": network.beam,
            "max_length": network.max_length,
        },
        "threads": args.threads,
        "rounds": args.rounds,
        "clip": clip,
        "decoding": steps,
        "least": {"clip": LEAST_CLIP, "decoding": LEAST_DECODING},
        "ok": clip["ratio"] >= LEAST_CLIP and all(row["ratio"] >= LEAST_DECODING for row in steps.values()),
        "machine": describe_machine() | {"torch": installed("torch")},
    }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
