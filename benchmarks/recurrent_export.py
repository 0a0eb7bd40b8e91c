"""Exported recurrent layers against torch eager, and streams against one call: every combination that is promised.

    python benchmarks/recurrent_export.py [--only loop] [--part 8] [--rounds 15] [--resume ROWS] [--write]

``matrix``: each combination of `tests.exporters.recurrent_networks` is exported, all in one process, held against torch
in float64 at batch 1, 2, 7 and 1, 2, 33, 200 steps, and timed at batch 1 and 8 with 33 steps on one thread. Both sides
take turns; a ratio is torch's median over the graph's, above 1 the graph is faster. What is allowed to differ is 30
times what torch in float32 differs from torch in float64.

``streaming``: 10,000 steps one at a time through `Engine.stream` against one call, and what a step costs more than a
bare ``session.run``.

--only takes the combinations whose kind begins so, --part every so-many-th combination. --resume keeps each finished
combination as a line of JSON in a file, and measures none again that the file has.
"""

# ruff: noqa: E402 - the variables below have to be set before numpy and the runtimes are loaded

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is loaded
sys.path.insert(0, str(Path(__file__).parents[1]))  # the networks are the tests' own

import numpy as np
import torch

from exporters.convert import convert, rename_axes
from exporters.graphs import operators
from exporters.parity import NOISE_MARGIN
from exporters.spec import Signature
from runtime.engine import Engine
from runtime.machine import describe_machine
from runtime.manifest import StateSpec
from tests.exporters.recurrent_networks import Combination, combinations, truth_of

RESULT = Path(__file__).parent / "results" / "recurrent_export.json"
BATCHES, LENGTHS, TIMED_STEPS = (1, 2, 7), (1, 2, 33, 200), 33
STREAMED = 10_000
SLOWEST, MEDIAN, OVERHEAD_US = 1.05, 1.4, 30.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="KIND", help="combinations whose kind begins so, e.g. loop-gru")
    parser.add_argument("--part", type=int, default=1, metavar="N", help="every N-th combination")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="timed turns of each side")
    parser.add_argument("--resume", type=Path, metavar="ROWS", help="a file that keeps what is measured")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [found for found in combinations() if found.kind.startswith(arguments.only)][:: arguments.part]
    rows = list(resumed(chosen, arguments.rounds, arguments.resume))
    ratios = sorted(ratio for row in rows for ratio in row["ratios"].values())
    streams = [streamed(kind) for kind in ("rnn-tanh", "lstm", "gru")]
    wrong = [row["combination"] for row in rows if not row["equal"] or not row["operators"]]
    ok = {
        "combinations": len(rows),
        "not equal, or other operators": wrong,
        "median ratio": round(statistics.median(ratios), 2),
        "least ratio": round(ratios[0], 2),
        "slower than 1.05 of torch": sum(ratio < 1 / SLOWEST for ratio in ratios),
        "streaming": streams,
    }
    print(json.dumps(ok, indent=1))
    result = {**ok, "rows": rows, "machine": describe_machine()}
    print(json.dumps(result["machine"], indent=1))
    if arguments.write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    good = (
        not wrong
        and statistics.median(ratios) >= MEDIAN
        and not ok["slower than 1.05 of torch"]
        and all(row["max_abs"] <= row["allowed"] and row["overhead_us"] <= OVERHEAD_US for row in streams)
    )
    return 0 if good else 1


def resumed(chosen: Sequence[Combination], rounds: int, path: Path | None) -> Iterator[dict[str, Any]]:
    """A row of each combination: from the file where it has one, otherwise measured and added to the file."""
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    known = {row["combination"]: row for row in map(json.loads, lines)}
    for options in chosen:
        row = known.get(str(options)) or measured(options, rounds)
        if path is not None and str(options) not in known:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        yield row


def measured(options: Combination, rounds: int) -> dict[str, Any]:
    """One combination: equal to torch, its operators, and its speed."""
    network, names = options.network(), [output.name for output in options.outputs()]
    signature = Signature(options.inputs(), options.outputs())
    converted = convert(options.network(), options.arrays(3, 5), signature, 18)
    rename_axes(converted.model, signature)
    counted = operators(converted.model)
    engine = Engine(converted.model.SerializeToString(), threads=1, name=str(options))
    error = noise = 0.0
    for batch, steps in itertools.product(BATCHES, LENGTHS):
        arrays = options.arrays(batch, steps)
        truth = truth_of(network, arrays)
        for name, single, double in zip(names, truth_of(network, arrays, torch.float32), truth, strict=True):
            noise = max(noise, float(np.abs(single - double).max()))
            error = max(error, float(np.abs(engine.run(arrays)[name] - double).max()))
    ratios = {}
    for batch in (1, 8):
        arrays = options.arrays(batch, TIMED_STEPS)
        tensors = [torch.from_numpy(array) for array in arrays.values()]
        feed, run = dict(arrays), engine.session.run
        with torch.inference_mode():
            eager, graph = in_turns(lambda: network(*tensors), lambda: run(names, feed), rounds)  # noqa: B023 - they run at once
        ratios[str(batch)] = round(eager / graph, 2)
    row = {
        "combination": str(options),
        "max_abs": error,
        "allowed": NOISE_MARGIN * noise,
        "equal": error <= NOISE_MARGIN * noise,
        "operators": all(counted.get(name, 0) == count for name, count in options.operators.items()),
        "ratios": ratios,
    }
    print(f"{options!s:60} {error:.1e} of {row['allowed']:.1e}  " + "  ".join(f"{v:5.2f}" for v in ratios.values()))
    return row


def in_turns(one: Callable[[], Any], other: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Medians of both in seconds, after two turns that do not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 2):
        for taken, call in zip(times, (one, other), strict=True):
            start = time.perf_counter()
            call()
            if turn >= 2:
                taken.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def streamed(kind: str) -> dict[str, Any]:
    """A layer step by step against one call, and its cost a step above the bare session."""
    options = Combination(kind, states=True)
    state = [StateSpec(f"{n}0", f"{n}n", (1, "B", width), "float32") for n, width in options.widths.items()]
    signature = Signature(options.inputs(), options.outputs(), state)
    converted = convert(options.network(), options.arrays(3, 5), signature, 18)
    rename_axes(converted.model, signature)
    spec = signature.spec({}, ())
    engine = Engine(converted.model.SerializeToString(), spec=spec, threads=1, name=kind)
    arrays = options.arrays(1, STREAMED)
    x, zeros = arrays["x"], {f"{name}0": np.zeros((1, 1, width), np.float32) for name, width in options.widths.items()}
    whole = engine.run({"x": x, **zeros})["y"]
    noise = np.abs(
        truth_of(options.network(), {"x": x, **zeros}, torch.float32)[0]
        - truth_of(options.network(), {"x": x, **zeros})[0]
    ).max()
    names, run = [output.name for output in signature.outputs], engine.session.run
    rounds = []
    for _ in range(3):
        stream = engine.stream()
        start = time.perf_counter()
        answers = [stream.step({"x": x[index : index + 1]})["y"] for index in range(STREAMED)]
        ours = time.perf_counter() - start
        state = dict(zeros)
        start = time.perf_counter()
        for index in range(STREAMED):
            found = run(names, {"x": x[index : index + 1], **state})
            state = dict(zip(state, found[1:], strict=True))
        rounds.append((ours - (time.perf_counter() - start)) / STREAMED * 1e6)
    return {
        "kind": kind,
        "max_abs": float(np.abs(np.concatenate(answers) - whole).max()),
        "allowed": float(NOISE_MARGIN * noise),
        "overhead_us": round(statistics.median(rounds), 2),
        "step_us": round(ours / STREAMED * 1e6, 2),
    }


if __name__ == "__main__":
    sys.exit(main())
